"""The walls of the house, counted: size, names, cycles, hidden imports, what an import costs, what is documented."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

import mainspring
from mainspring import errors

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "mainspring"
# What `mainspring new` copies is the user's code, not ours.
MODULES = sorted(path for path in SOURCE.rglob("*.py") if "projects" not in path.parts)
# Functions that import by name because a user's setting or module decides: the registered lazy loaders.
LOADERS = {"lazy.py", "__init__.py", "cli/__init__.py", "choose/discover.py", "config/project.py", "plan/closure.py"}


def relative(path: Path) -> str:
    return str(path.relative_to(SOURCE))


class Read:
    """What one pass over the syntax of all modules has found.

    Attributes:
        hidden: places of imports within functions.
        codes: error codes, with the rooms that name them.
        bare: places of errors that are made without a remedy.
    """

    def __init__(self) -> None:
        self.hidden: list[str] = []
        self.codes: dict[str, set[str]] = {}
        self.bare: list[str] = []
        self._errors = {name for name in vars(errors) if name.endswith("Error")} - {"InternalError"}
        for path in MODULES:
            self._read(ast.parse(path.read_text("utf-8")), relative(path), within=False)

    def _read(self, node: ast.AST, name: str, within: bool) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom) and within:
            self.hidden.append(f"{name}:{node.lineno}")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"MS-\d{4}", node.value):
            self.codes.setdefault(node.value, set()).add(name.partition("/")[0])
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in self._errors:
            words = {word.arg for word in node.keywords}
            if "code" in words and "fix" not in words:
                self.bare.append(f"{name}:{node.lineno}")
        within = within or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.iter_child_nodes(node):
            self._read(inner, name, within)


@pytest.fixture(scope="module")
def read() -> Read:
    return Read()


def test_no_module_is_over_600_lines() -> None:
    long = {relative(path): lines for path in MODULES if (lines := len(path.read_text("utf-8").splitlines())) > 600}
    assert not long


def test_no_name_says_nothing() -> None:
    assert not [relative(p) for p in MODULES if re.search(r"(^|/)(utils?|helpers?|common|misc)(/|\.py$)", relative(p))]


def test_no_import_is_hidden_in_a_function(read: Read) -> None:
    assert not read.hidden


def test_modules_are_loaded_by_name_only_in_the_registered_loaders() -> None:
    found = {
        relative(path)
        for path in MODULES
        if re.search(r"\bimport_module\(|\b__import__\(", path.read_text("utf-8")) and relative(path) not in LOADERS
    }
    assert not found - {"engine/reference.py"}


def test_there_is_no_import_cycle() -> None:
    graph = grimp.build_graph("mainspring", include_external_packages=False)
    cycles = []
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            chain = graph.find_shortest_chain(importer=imported, imported=module)
            if chain is not None:
                cycles.append((*chain, imported))
    assert not cycles


def test_importing_any_module_only_defines_names() -> None:
    """No module starts threads or processes or opens files for writing when it is imported.

    urllib3, which LangChain brings, asks the kernel for IPv6 when it is imported itself; that is not ours to mend.
    """
    code = (
        "import sys, threading, os\n"
        "bad = []\n"
        "def probing(frame):\n"
        "    while frame is not None and frame.f_code.co_name != '_has_ipv6': frame = frame.f_back\n"
        "    return frame is not None and frame.f_globals['__name__'] == 'urllib3.util.connection'\n"
        "def hook(event, args):\n"
        "    if event == 'socket.bind' and probing(sys._getframe()): return\n"
        "    if event in ('socket.connect', 'subprocess.Popen', 'os.fork', 'socket.bind'): bad.append((event, args))\n"
        "    if event == 'open' and isinstance(args[1], str) and set(args[1]) & set('wax+') "
        "and '__pycache__' not in str(args[0]): bad.append((event, args[0]))\n"
        "sys.addaudithook(hook)\n"
        "import importlib, pkgutil, mainspring\n"
        "for m in pkgutil.walk_packages(mainspring.__path__, 'mainspring.'):\n"
        "    if '.testing' not in m.name: importlib.import_module(m.name)\n"
        "ours = [t.name for t in threading.enumerate() if t is not threading.main_thread()]\n"
        "print(bad, ours)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[] []"


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stdout.splitlines())


HELP = """
import sys
sys.argv = ["mainspring", "--help"]
from mainspring.cli import main
try: main()
except SystemExit: pass"""


def test_help_loads_at_most_100_modules_and_click_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{HELP}\nprint('MODULES', *sys.modules)"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded = next(line for line in done.stdout.splitlines() if line.startswith("MODULES")).split()[1:]
    third_party = {
        name.partition(".")[0] for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names
    } - {"mainspring", "__main__", "_distutils_hack"}
    assert third_party == {"click"}
    assert len(loaded) <= 100, len(loaded)


@pytest.mark.parametrize("verb", ["build", "deploy"])
def test_the_help_of_what_ships_loads_no_cloud_library(verb: str) -> None:
    loaded = modules_after(
        f"from mainspring.cli import cli\ncli.main(['{verb}', '--help'], prog_name='m', standalone_mode=False)"
    )
    assert "mainspring.cli.deploy" in loaded or verb == "build"
    heads = {name.partition(".")[0] for name in loaded}
    assert not heads & {
        "lightkube",
        "httpx2",
        "kubernetes",
        "boto3",
        "botocore",
        "azure",
        "google",
        "kfp",
        "oras",
        "ray",
    }
    assert not [name for name in loaded if name.startswith("mainspring.adapters.")]


def test_importing_mainspring_loads_nothing_else() -> None:
    extra = modules_after("import mainspring") - modules_after("pass")
    ours = {name for name in extra if name.startswith("mainspring")}
    assert ours == {"mainspring"}
    assert not {name for name in extra if name.partition(".")[0] not in sys.stdlib_module_names} - ours


def test_declaring_an_app_loads_no_heavy_library() -> None:
    loaded = modules_after("from mainspring import App, Entity, Frame, Model, Record, avg")
    assert not loaded & {"pyarrow", "polars", "pandas", "numpy", "duckdb", "sklearn", "deltalake", "lmdb"}


def test_no_adapter_is_imported_that_was_not_chosen() -> None:
    loaded = modules_after("from mainspring.choose.discover import adapters\nadapters()")
    deep = {name for name in loaded if name.startswith("mainspring.adapters.") and name.count(".") > 2}
    assert not deep, "only the light __init__ of an adapter may be imported before it is chosen"
    assert not loaded & {"deltalake", "lmdb", "onnxruntime", "lightgbm", "sklearn", "skl2onnx"}


def public_modules() -> list[str]:
    return [
        module.name
        for module in pkgutil.walk_packages(mainspring.__path__, "mainspring.")
        if not any(part.startswith("_") for part in module.name.split("."))
    ]


@pytest.mark.parametrize("name", public_modules())
def test_everything_public_is_documented(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    missing = []
    for public in getattr(module, "__all__", ()):
        value = getattr(module, public)
        if getattr(value, "__module__", None) != name or not callable(value):
            continue
        if not (value.__doc__ or "").strip():
            missing.append(public)
        if isinstance(value, type):
            missing += [
                f"{public}.{method}"
                for method, member in vars(value).items()
                if not method.startswith("_") and callable(member) and not (member.__doc__ or "").strip()
            ]
    assert not missing


def test_every_error_code_is_documented_and_belongs_to_one_room(read: Read) -> None:
    documented = set(re.findall(r"MS-\d{4}", (ROOT / "docs" / "errors.md").read_text("utf-8")))
    assert not sorted(set(read.codes) - documented), "add these to docs/errors.md"
    assert not sorted(documented - set(read.codes)), "documented, but nothing raises them"


def test_every_error_has_a_remedy(read: Read) -> None:
    """Where it is made, not only once for its code; of our own bugs the remedy is to report them."""
    assert not read.bare


def test_every_setting_verb_and_port_is_documented() -> None:
    from mainspring.cli import VERBS
    from mainspring.config.schema import PORTS, SETTINGS

    settings = (ROOT / "docs" / "settings.md").read_text("utf-8")
    verbs = (ROOT / "docs" / "cli.md").read_text("utf-8")
    assert not [spec.key for spec in SETTINGS if f"`{spec.key}`" not in settings]
    assert not [port for port in PORTS if f"`{port}" not in settings]
    assert not [verb for verb in VERBS if f"mainspring {verb}" not in verbs]


def test_every_verb_has_a_module_and_its_help_works() -> None:
    from mainspring.cli import VERBS, module_of

    for verb in VERBS:
        assert importlib.import_module(module_of(verb)).command.name is not None


def test_the_version_is_one() -> None:
    assert importlib.metadata.version("mainspring") in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_no_registry_and_no_machine_is_named() -> None:
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    assert "--index-url" not in lock
    assert "://" not in lock
    assert not re.search(r"^torch==", lock, re.MULTILINE)
