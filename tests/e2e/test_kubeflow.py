"""Pipelines compiled for Kubeflow: what kfp itself makes of the document, and what its local runner computes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from e2e.conftest import mainspring
from portable_kit import write_project
from tool_env import tool_env

ROOT = Path(__file__).parents[2]
IMAGE = "registry.example.com/team/python-work@sha256:" + "a" * 64

DRIVER = """
import json, sys
from kfp import components, local

file, root, python, arguments = sys.argv[1:]
sys.executable = python  # what stands for the image: kfp is not in it
local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=root)
components.load_component_from_file(file)(**json.loads(arguments))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return write_project(tmp_path_factory.mktemp("kubeflow") / "work")


@pytest.fixture(scope="module")
def kfp() -> Path:
    return tool_env("kfp", "kfp==2.17.0") / "python"


def build(project: Path, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    return mainspring("build", "--kfp", *words, "--use", IMAGE, cwd=project, status=status)


def run_by_kfp(kfp: Path, project: Path, file: Path, root: Path, **arguments: object) -> dict[str, str]:
    """Digests by step, as kfp's local runner leaves them below its root."""
    driver = root.parent / "driver.py"
    driver.write_text(DRIVER)
    done = subprocess.run(
        [kfp, driver, file, root, sys.executable, json.dumps(arguments)],
        cwd=project,
        env={**os.environ, "MAINSPRING_STATE_FOLDER": str(root.parent / "state")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cards = list(root.glob("*/*/result/artifact.json"))
    assert len(cards) == len(set(root.glob("*/*/result"))), "every step left an artifact"
    return {path.parts[-3]: json.loads(path.read_text())["digest"] for path in cards}


def own_run(project: Path, *words: str) -> dict[str, str]:
    done = mainspring("run", *words, "--json", cwd=project)
    steps = json.loads(done.stdout)["steps"]
    return {step["name"].partition("/")[2]: step["outputs"] for step in steps if step["name"].startswith("step/")}


def test_kfp_runs_the_file_and_computes_what_our_run_computes(kfp, project, tmp_path) -> None:
    file = tmp_path / "nightly.yaml"
    build(project, "nightly", "-o", str(file))
    first = file.read_bytes()
    build(project, "nightly", "-o", str(tmp_path / "again.yaml"))
    assert (tmp_path / "again.yaml").read_bytes() == first
    own = own_run(project, "nightly", "n=5", "when=2026-11-28", "days=[4,4,5]", "label=@home")
    found = run_by_kfp(
        kfp, project, file, tmp_path / "root", n=5, when="2026-11-28", days=[4, 4, 5], factor=2.0, label="@home"
    )
    expected = {name: digest for name, digest in own.items() if "." not in name}
    assert found == expected
    assert len(found) == 8


def test_rows_of_a_source_come_from_the_profile_s_stores(kfp, project, tmp_path) -> None:
    file = tmp_path / "sums.yaml"
    build(project, "sums", "-o", str(file))
    found = run_by_kfp(kfp, project, file, tmp_path / "root")
    assert found["summed"] == own_run(project, "sums")["summed"]
    assert set(found) == {"rows-orders", "summed"}


def test_a_value_that_is_given_is_fixed(project, tmp_path) -> None:
    build(project, "looks", "days=[1,2,3]", "-o", str(tmp_path / "looks.json"))
    document = json.loads((tmp_path / "looks.json").read_text())
    assert "inputDefinitions" not in document["root"]
    assert sorted(document["root"]["dag"]["tasks"]) == ["doubled", "doubled-2", "doubled-3"]
    words = [one["container"]["args"] for one in document["deploymentSpec"]["executors"].values()]
    assert [word for args in words for word in args if word.startswith("item=")] == ["item=1", "item=2", "item=3"]


def test_retries_resources_and_defaults_are_kubeflow_s(project) -> None:
    document = yaml.safe_load(build(project, "on_gpu").stdout)
    container = document["deploymentSpec"]["executors"]["exec-heavy"]["container"]
    assert container["image"] == IMAGE
    assert container["resources"] == {
        "cpuLimit": 2.0,
        "resourceCpuLimit": "2",
        "memoryLimit": 4.0,
        "resourceMemoryLimit": "4000000000",
        "accelerator": {
            "type": "nvidia.com/gpu",
            "count": "1",
            "resourceType": "nvidia.com/gpu",
            "resourceCount": "1",
        },
    }
    task = document["root"]["dag"]["tasks"]["heavy"]
    assert (task["retryPolicy"]["maxRetryCount"], task["retryPolicy"]["backoffDuration"]) == (2, "5s")
    assert task["cachingOptions"] == {}
    parameter = document["root"]["inputDefinitions"]["parameters"]["n"]
    assert parameter == {"parameterType": "STRING", "defaultValue": "null", "isOptional": True}


ORACLE = """
import sys
from kfp import compiler, dsl

@dsl.component(base_image="IMAGE", install_kfp_package=False)
def heavy(result: dsl.Output[dsl.Artifact]): pass

@dsl.component(base_image="IMAGE", install_kfp_package=False)
def numbers(n: int, result: dsl.Output[dsl.Artifact]): pass

@dsl.component(base_image="IMAGE", install_kfp_package=False)
def scaled(rows: dsl.Input[dsl.Artifact], factor: float, label: str, days: list, result: dsl.Output[dsl.Artifact]): pass

@dsl.pipeline(name="work-oracle")
def oracle(n: int, factor: float = 2.0, label: str = "b", days: list = [1, 2, 3]):
    heavy().set_retry(2, backoff_duration="5s", backoff_factor=2.0, backoff_max_duration="60s").set_cpu_limit(
        "2").set_memory_limit("4000000000").set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(
        1).set_caching_options(False)
    rows = numbers(n=n).set_caching_options(False)
    scaled(rows=rows.outputs["result"], factor=factor, label=label, days=days).set_caching_options(False)

compiler.Compiler().compile(oracle, sys.argv[1])
"""


def test_kfp_s_own_compiler_says_the_same(kfp, project, tmp_path) -> None:
    """All but the command and the words: those are ours."""
    (project / "oracle.py").write_text(
        "from mainspring import App, Frame\n\napp = App('work')\n\n"
        "@app.step(retries=2, backoff='5s', resources={'cpu': 2, 'memory': 4_000_000_000, 'gpu': 1})\n"
        "def heavy() -> int: return 1\n\n"
        "@app.step()\ndef numbers(n: int) -> int: return n\n\n"
        "@app.step()\ndef scaled(rows: int, factor: float, label: str, days: list[int]) -> int: return rows\n\n"
        "@app.pipeline\ndef oracle(n: int, factor: float = 2.0, label: str = 'b', days: list[int] = [1, 2, 3]):\n"
        "    heavy()\n    scaled(numbers(n), factor, label, days)\n"
    )
    driver = tmp_path / "oracle.py"
    driver.write_text(ORACLE.replace("IMAGE", IMAGE))
    subprocess.run([kfp, driver, tmp_path / "theirs.yaml"], check=True, timeout=120, capture_output=True)
    theirs = yaml.safe_load((tmp_path / "theirs.yaml").read_text())
    done = mainspring("build", "--kfp", "oracle", "--use", IMAGE, cwd=project, env={"MAINSPRING_APP": "oracle:app"})
    ours = yaml.safe_load(done.stdout)
    for document in (theirs, ours):
        for executor in document["deploymentSpec"]["executors"].values():
            executor["container"].pop("command"), executor["container"].pop("args")
        del document["sdkVersion"]
    assert ours == theirs


@pytest.mark.parametrize(
    ("words", "code", "status"),
    [
        (["looks"], "MS-2770", 1),
        (["pays"], "MS-2773", 1),
        (["nobody"], "MS-2602", 2),
        (["step/total"], "MS-2776", 2),
        (["nightly", "n=x"], "MS-2608", 2),
        ([], "MS-2776", 2),
    ],
)
def test_what_cannot_be_is_refused(project, words, code, status) -> None:
    assert code in build(project, *words, status=status).stderr


def test_an_image_is_named_by_its_digest(project) -> None:
    named = mainspring("build", "--kfp", "nightly", "--use", "team/app:latest", cwd=project, status=2)
    assert "MS-2777" in named.stderr


def test_kfp_is_not_imported(project) -> None:
    program = """
import sys
sys.argv = ["mainspring", "build", "--help"]
from mainspring.cli import main
try:
    main()
finally:
    print(sorted({name.partition(".")[0] for name in sys.modules} & {"kfp", "kubernetes", "boto3", "google"}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_page_s_example_does_what_it_says(tmp_path) -> None:
    page = (ROOT / "docs" / "pipelines.md").read_text()
    code, commands = re.search(r"```python\n(.*?)```\n", page, re.S), re.findall(r"^(mainspring .*)$", page, re.M)
    assert code is not None
    (tmp_path / "flows.py").write_text(code[1])
    (tmp_path / "mainspring.toml").write_text('app = "flows:app"\n')
    assert len(commands) == 3
    for command in commands:
        mainspring(*command.replace("sha256:...", "sha256:" + "a" * 64).split()[1:], cwd=tmp_path)
    assert json.loads((tmp_path / "out/total/value.json").read_text()) == {"value": 22.5}
    done = json.loads(mainspring("run", "nightly", "--json", cwd=tmp_path).stdout)
    digest = json.loads((tmp_path / "out/total/artifact.json").read_text())["digest"]
    assert done["steps"][-1]["outputs"] == digest
