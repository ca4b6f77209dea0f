"""Settings: order of layers, origins, secrets, and errors with the line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mainspring.config.lines import read_toml
from mainspring.config.project import load_app
from mainspring.config.schema import SETTINGS, misfit
from mainspring.config.settings import Setting, Settings, find_project, load_settings
from mainspring.errors import ConfigError, DeclarationError, MainspringError

TOML = """\
app = "shop:app"

[sources.orders]
path = "orders.parquet"

[server]
port = 9000

[profiles.prod]
online.url = "redis://cache:6379"
server.port = 80
sources.orders.url = "postgresql://shop:${env:SHOP_PASSWORD}@db/shop"
"""


def project(tmp_path: Path, text: str = TOML) -> Path:
    (tmp_path / "mainspring.toml").write_text(text)
    return tmp_path


def test_a_platform_says_where_it_asks(tmp_path: Path) -> None:
    folder = project(tmp_path)
    for environment, port in (
        ({"AIP_HTTP_PORT": "7001"}, 7001),
        ({"SAGEMAKER_BIND_TO_PORT": "7002"}, 7002),
        ({"AZUREML_MODEL_DIR": "/m"}, 5001),
        ({"AZUREML_ENTRY_SCRIPT": "score.py", "SERVER_PORT": "7003"}, 7003),
    ):
        settings = load_settings(folder, environment=environment)
        assert (settings.text("server.host"), settings.whole("server.port")) == ("0.0.0.0", port)
        mine = load_settings(folder, environment={**environment, "MAINSPRING_SERVER_PORT": "7009"})
        assert mine.whole("server.port") == 7009
    assert load_settings(folder, environment={"SERVER_PORT": "7004"}).whole("server.port") == 9000
    with pytest.raises(ConfigError, match="port"):
        load_settings(folder, environment={"AIP_HTTP_PORT": "many"})


def test_defaults_file_profile_environment_flag(tmp_path: Path) -> None:
    folder = project(tmp_path)
    assert load_settings(folder).whole("server.port") == 9000
    prod = load_settings(folder, profile="prod")
    assert prod.whole("server.port") == 80
    assert load_settings(folder, environment={"MAINSPRING_PROFILE": "prod"}).profile == "prod"
    environment = {"MAINSPRING_SERVER_PORT": "81"}
    assert load_settings(folder, profile="prod", environment=environment).whole("server.port") == 81
    flags = {"server.port": 82}
    assert load_settings(folder, profile="prod", environment=environment, flags=flags).whole("server.port") == 82


def origin(settings: Settings, key: str) -> str:
    found = settings.setting(key)
    assert found is not None
    return found.origin


def test_every_value_has_its_origin(tmp_path: Path) -> None:
    folder = project(tmp_path)
    settings = load_settings(
        folder, profile="prod", environment={"MAINSPRING_ENGINE_WORKERS": "3"}, flags={"server.host": "0.0.0.0"}
    )
    assert origin(settings, "online.url") == "mainspring.toml:10 [profiles.prod]"
    assert origin(settings, "sources.orders.path") == "mainspring.toml:4 [sources.orders]"
    assert origin(settings, "engine.workers") == "MAINSPRING_ENGINE_WORKERS"
    assert origin(settings, "server.host") == "--host"
    assert origin(settings, "server.timeout") == "default"


def test_profile_dev_opens_console_and_management(tmp_path: Path) -> None:
    folder = project(tmp_path)
    assert load_settings(folder).flag("console.enabled")
    assert not load_settings(folder, profile="prod").flag("console.enabled")
    assert not load_settings(folder, profile="prod").flag("serving.replay")


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("app = ", "MS-3001", "mainspring.toml"),
        ("[server]\nprot = 1\n", "MS-3004", "mainspring.toml:2 [server]"),
        ('[server]\nport = "many"\n', "MS-3005", "mainspring.toml:2 [server]"),
        ("[profiles.prod.server]\nprot = 1\n", "MS-3004", "mainspring.toml:2 [profiles.prod.server]"),
        ("[sources.a]\npaht = 'x'\n", "MS-3004", "mainspring.toml:2 [sources.a]"),
    ],
)
def test_faults_name_their_line(tmp_path: Path, text: str, code: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(project(tmp_path, text))
    assert (caught.value.code, caught.value.origin) == (code, line)


@pytest.mark.parametrize(
    ("text", "takes"),
    [
        ("[server]\nport = 99999\n", "0 to 65535"),
        ("[management]\nport = -1\n", "0 to 65535"),
        ("[engine]\nworkers = -3\n", "at least 0"),
        ("[server]\nqueue = 0\n", "at least 1"),
        ("[server]\ntimeout = nan\n", "at least 0.001"),
        ("[sources.a]\nformat = 'xlsx'\n", 'one of "parquet", "csv", "json", "arrow"'),
        ("[sources.a]\ntruncate = 'ns'\n", 'one of "us"'),
        ("[server]\nkeys = [1]\n", "no text"),
    ],
)
def test_values_out_of_range_are_refused_when_they_are_loaded(tmp_path: Path, text: str, takes: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(project(tmp_path, text))
    assert (caught.value.code, caught.value.origin[:17]) == ("MS-3006", "mainspring.toml:2")
    assert takes in caught.value.why
    assert caught.value.fix


def test_every_default_is_in_its_range() -> None:
    assert not [spec.key for spec in SETTINGS if spec.default is not None and misfit(spec, spec.default)]


def test_a_value_of_the_environment_or_a_flag_is_held_to_the_same_range(tmp_path: Path) -> None:
    for environment, flags, origin in (
        ({"MAINSPRING_SERVER_PORT": "70000"}, {}, "MAINSPRING_SERVER_PORT"),
        ({}, {"server.port": 70_000}, "--port"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_settings(project(tmp_path), environment=environment, flags=flags)
        assert (caught.value.code, caught.value.origin) == ("MS-3006", origin)


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("[server]\nprot = 1\n", "did you mean 'server.port'?"),
        ("[sources.visits]\npaht = 'x'\n", "did you mean 'sources.visits.path'?"),
        ("[engine]\nthe_number_of_things = 1\n", "known: engine.workers"),
        ("[servre]\nx = 1\n", "did you mean 'server'?"),
        ("[servre]\n", "did you mean 'server'?"),
        ("[clusters]\nadapter = 'ray'\n", "your own go below [values]; known sections: app, sources, "),
    ],
)
def test_unknown_settings_name_the_nearest_or_the_known_ones(tmp_path: Path, text: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(project(tmp_path, text))
    assert caught.value.code == "MS-3004"
    assert caught.value.fix.startswith(fix)
    assert caught.value.origin.startswith("mainspring.toml:")


def test_an_empty_profile_is_one_and_empty_tables_set_nothing(tmp_path: Path) -> None:
    folder = project(tmp_path, "[server]\n[sources.a]\n[online]\n[profiles.prod]\n[profiles.stage.server]\n")
    settings = load_settings(folder, profile="prod")
    assert settings.profiles == ("prod", "stage")
    assert settings.whole("server.port") == 8080
    with pytest.raises(ConfigError) as caught:
        load_settings(project(tmp_path, "[server]\nport = {}\n"))
    assert caught.value.code == "MS-3005"


def test_unknown_profile(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(project(tmp_path), profile="staging")
    assert caught.value.code == "MS-3003"
    assert "prod" in caught.value.why


def test_no_project(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        find_project(tmp_path)
    assert caught.value.code == "MS-3002"


def test_a_project_is_found_from_below(tmp_path: Path) -> None:
    below = project(tmp_path) / "a" / "b"
    below.mkdir(parents=True)
    assert find_project(below) == tmp_path


def test_secrets_are_references_until_they_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project(tmp_path)
    settings = load_settings(folder, profile="prod")
    shown = settings.setting("sources.orders.url")
    assert shown is not None
    assert "${env:SHOP_PASSWORD}" in str(shown.shown())
    monkeypatch.setenv("SHOP_PASSWORD", "s3cret")
    assert settings.secret("sources.orders.url") == "postgresql://shop:s3cret@db/shop"
    monkeypatch.delenv("SHOP_PASSWORD")
    with pytest.raises(ConfigError) as caught:
        settings.secret("sources.orders.url")
    assert caught.value.code == "MS-3007"


def test_a_secret_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\n")
    settings = load_settings(project(tmp_path, '[management]\ntoken = "file:token"\n'))
    assert settings.secret("management.token") == "abc"


def test_secrets_that_are_written_out_are_not_shown() -> None:
    assert Setting("server.keys", ["env:A", "letmein"], "x").shown() == ["env:A", "******"]
    assert Setting("management.token", "letmein", "x").shown() == "******"
    assert [item.value for item in Setting("server.keys", ["env:A", "letmein"], "x").references()] == ["env:A"]


@pytest.mark.parametrize("text", ["[server]\nkeys = 'letmein'\n", "[management]\ntoken = ['letmein']\n"])
def test_a_secret_of_the_wrong_type_is_not_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(project(tmp_path, text))
    assert caught.value.code == "MS-3005"
    assert "letmein" not in caught.value.lines()


def test_passwords_in_urls_are_not_shown() -> None:
    assert Setting("catalog.url", "postgresql://u:pw@h/db", "x").shown() == "postgresql://u:******@h/db"


def test_every_setting_is_unique_and_explained() -> None:
    keys = [spec.key for spec in SETTINGS]
    assert len(keys) == len(set(keys))
    assert all(spec.meaning for spec in SETTINGS)


def test_lines_of_quoted_and_dotted_keys() -> None:
    written = {item.path: (item.line, item.table) for item in read_toml('a.b = 1\n["x y"]\n"c d" = 2\n', "f")}
    assert written == {("a", "b"): (1, ""), ("x y", "c d"): (3, "x y")}


def app_module(tmp_path: Path, name: str, body: str) -> Settings:
    (tmp_path / f"{name}.py").write_text(body)
    return load_settings(project(tmp_path, f'app = "{name}:app"\n'))


@pytest.mark.parametrize(
    ("name", "body", "code", "place"),
    [
        ("app_syntax", "x = (\n", "MS-1031", "app_syntax.py:1"),
        ("app_raises", "a = 1\nb = 1 / 0\n", "MS-1031", "app_raises.py:2"),
        ("app_import", "import not_there_at_all\n", "MS-1031", "app_import.py:1"),
        ("app_none", "application = 1\n", "MS-3009", "mainspring.toml:1"),
        (
            "app_option",
            "from mainspring import App\napp = App('a')\napp.model(houldout=1)\n",
            "MS-1032",
            "app_option.py:3",
        ),
        ("app_window", "from mainspring import avg\navg('x', widnow='1h')\n", "MS-1032", "app_window.py:2"),
        ("app_field", "from mainspring import Field\nField(gee=1)\n", "MS-1032", "app_field.py:2"),
        (
            "app_bare",
            "from mainspring import App\napp = App('a')\n\n@app.model\ndef f(x, y):\n    return x\n",
            "MS-1042",
            "app_bare.py:4",
        ),
        ("app_called", "from mainspring import App\napp = App('a')\napp.pipeline()\n", "MS-1042", "app_called.py:3"),
        ("app_own", "def f():\n    pass\nf(x=1)\n", "MS-1031", "app_own.py:3"),
    ],
)
def test_apps_that_do_not_load_name_the_line(tmp_path: Path, name: str, body: str, code: str, place: str) -> None:
    with pytest.raises(MainspringError) as caught:
        load_app(app_module(tmp_path, name, body))
    assert (caught.value.code, caught.value.origin) == (code, place)


def test_an_app_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_app(load_settings(project(tmp_path, 'app = "no_such_module:app"\n')))
    assert caught.value.code == "MS-3008"


def test_declaration_errors_pass_through_with_their_line(tmp_path: Path) -> None:
    body = "from mainspring import App, Record\nclass A(Record):\n    x: int\napp = App('a')\napp.source(A, time='t')\n"
    with pytest.raises(DeclarationError) as caught:
        load_app(app_module(tmp_path, "app_bad", body))
    assert (caught.value.code, caught.value.origin) == ("MS-1007", "app_bad.py:5")


def test_two_projects_whose_modules_are_called_alike_are_two_apps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one process, as a notebook opens two checkouts: each has its own, again and again, with what it imports."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("first", "second"):
        folder = tmp_path / name
        (folder / "namesake").mkdir(parents=True)
        (folder / "mainspring.toml").write_text('app = "namesake.app:app"\n')
        (folder / "namesake" / "__init__.py").write_text("")
        (folder / "namesake" / "own.py").write_text(f"NAME = {name!r}\n")
        (folder / "namesake" / "app.py").write_text(
            "from mainspring import App\nfrom namesake.own import NAME\n\napp = App(NAME)\n"
        )
    for name in ("first", "second", "first", "first"):
        assert load_app(load_settings(tmp_path / name)).name == name
    for name in [name for name in sys.modules if name.partition(".")[0] == "namesake"]:
        del sys.modules[name]


def test_a_file_of_another_editor(tmp_path: Path) -> None:
    """A mark of the encoding is passed over; what is no UTF-8 is told with its line."""
    folder = project(tmp_path)
    file = folder / "mainspring.toml"
    file.write_bytes(b"\xef\xbb\xbf" + TOML.replace("\n", "\r\n").encode())
    assert load_settings(folder).whole("server.port") == 9000
    file.write_bytes(TOML.replace("orders.parquet", "auftr\xe4ge.parquet").encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load_settings(folder)
    assert (caught.value.code, caught.value.origin) == ("MS-3001", "mainspring.toml:4")
    assert "UTF-8" in caught.value.fix


def test_a_misspelt_section_of_profiles_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(project(tmp_path, TOML.replace("profiles.prod", "profile.prod")))
    assert caught.value.fix == "did you mean 'profiles'?"


def test_variables_reach_settings_of_several_words(tmp_path: Path) -> None:
    (tmp_path / "mainspring.toml").write_text("")
    environment = {
        "MAINSPRING_LIMITS_WEB_WINDOW_S": "5",
        "MAINSPRING_TENANT_LIMITS_BIG_CO_MONEY_MICRO": "7",
        "MAINSPRING_MODEL_LIMITS_CHAT_TOKENS": "9",
        "MAINSPRING_LIMITS_WEB_NOTHING": "1",
    }
    settings = load_settings(tmp_path, profile="dev", environment=environment)
    assert settings.number("limits.web.window_s") == 5
    assert settings.whole("tenant_limits.big_co.money_micro") == 7
    assert settings.whole("model_limits.chat.tokens") == 9
    assert not any("nothing" in key for key in settings.values)
