"""Which vector store a profile gets."""

import pytest

from mainspring.choose.services import Services
from mainspring.errors import ConfigError
from mainspring.ports.vector_store import Query, Schema, VectorStore


def services(tmp_path, toml="", profile=None):
    (tmp_path / "mainspring.toml").write_text(f'app = "app:app"\n{toml}')
    return Services.of_project(tmp_path, profile=profile)


def test_dev_gets_the_embedded_one_below_its_state_folder(tmp_path):
    found = services(tmp_path)
    assert found.decision("vectors").chosen.name == "qdrant_edge"
    assert isinstance(found.vectors, VectorStore)
    found.vectors.create("i", Schema(4))
    assert (tmp_path / ".mainspring" / "indexes" / "i").is_dir()
    assert not found.vectors.search("i", Query(dense=[1.0, 0, 0, 0])).complete
    found.close()


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ('vectors.adapter = "zvec"', "zvec"),
        ('vectors.url = "postgresql://somewhere/db"', "pgvector"),
        ('vectors.url = "qdrants://somewhere"', "qdrant"),
        ('vectors.url = "https://somewhere:6333"', "qdrant"),
    ],
)
def test_others_by_name_or_url(tmp_path, setting, name):
    found = services(tmp_path, f"[profiles.prod]\n{setting}\n", "prod")
    assert found.decision("vectors").chosen.name == name
    assert isinstance(found.vectors, VectorStore), "opening connects to nothing"
    found.close()


def test_outside_dev_the_embedded_one_must_be_named(tmp_path):
    with pytest.raises(ConfigError) as caught:
        services(tmp_path, "[profiles.prod]\n", "prod").decision("vectors")
    assert caught.value.code == "MS-3012"
