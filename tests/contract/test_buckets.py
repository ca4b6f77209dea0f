"""The object stores that sources are in, against the one contract: S3 by moto, Azure by azurite, GCS."""

import itertools
from pathlib import Path

import obstore
import pytest
from obstore.store import AzureStore, S3Store

import object_stores
from mainspring.adapters.obstore.source import open_source
from mainspring.errors import MainspringError
from mainspring.ports.source import Remote, SourceSettings
from mainspring.testing.buckets import BucketContract

STATE = Path("/nowhere")
NAMES = itertools.count()
S3 = {"region": "eu-central-1", "access_key_id": "me", "secret_access_key": "secret-word"}
AZURE = {"account_name": object_stores.ACCOUNT, "account_key": object_stores.KEY}


def filled(store):
    def fill(contents):
        for chunk in obstore.list(store):
            for entry in chunk:
                if entry["path"] not in contents:
                    obstore.delete(store, entry["path"])
        for path, content in contents.items():
            obstore.put(store, path, content)

    return fill


@pytest.fixture(scope="module")
def s3():
    with object_stores.s3() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def azure(tmp_path_factory):
    with object_stores.azure(tmp_path_factory.mktemp("azure")) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def gcs():
    with object_stores.gcs() as endpoint:
        yield endpoint


class TestS3(BucketContract):
    @pytest.fixture
    def endpoint(self, s3):
        return s3

    @pytest.fixture
    def bucket(self, endpoint):
        name = f"lake{next(NAMES)}"
        object_stores.make_bucket(endpoint, name)
        return name

    @pytest.fixture
    def filling(self, bucket, endpoint):
        return filled(S3Store(bucket, config={**S3, "endpoint": endpoint}, client_options={"allow_http": True}))

    @pytest.fixture
    def opening(self, bucket, endpoint):
        def open_one(path, **more):
            options = {**S3, "endpoint": endpoint, **more}
            return open_source(SourceSettings(url=f"s3://{bucket}/{path}", options=options), STATE)

        return open_one

    @pytest.fixture
    def missing(self, endpoint):
        return open_source(SourceSettings(url="s3://nowhere", options={**S3, "endpoint": endpoint}), STATE)

    @pytest.fixture
    def unreachable(self):
        options = {**S3, "endpoint": "http://127.0.0.1:1"}
        return open_source(SourceSettings(url="s3://lake", options=options, connect_timeout=0.5), STATE)

    def test_options_that_are_none_and_urls_that_hold_a_password(self, opening):
        for work in (lambda: opening("", colour="red"), lambda: open_source(SourceSettings(url="s3://a:b@c/d"), STATE)):
            with pytest.raises(MainspringError) as caught:
                work()
            assert caught.value.code == "MS-3042"


@pytest.mark.skipif(not object_stores.has_azurite(), reason="needs azurite: npm ci --prefix tests/node")
class TestAzure(BucketContract):
    @pytest.fixture
    def config(self, azure):
        return {**AZURE, "endpoint": azure}

    @pytest.fixture
    def container(self, config):
        name = f"lake{next(NAMES)}"
        object_stores.make_container(config["endpoint"], name)
        return name

    @pytest.fixture
    def filling(self, container, config):
        return filled(AzureStore(container, config=config, client_options={"allow_http": True}))

    @pytest.fixture
    def opening(self, container, config):
        return lambda path: open_source(SourceSettings(url=f"az://{container}/{path}", options=config), STATE)

    @pytest.fixture
    def missing(self, config):
        return open_source(SourceSettings(url="az://nowhere", options=config), STATE)

    @pytest.fixture
    def unreachable(self):
        options = {**AZURE, "endpoint": "http://127.0.0.1:1"}
        return open_source(SourceSettings(url="az://lake", options=options, connect_timeout=0.5), STATE)


class TestGcs(BucketContract):
    @pytest.fixture
    def config(self, gcs):
        return {"service_account_key": object_stores.gcs_account(gcs), "allow_http": "true"}

    @pytest.fixture
    def bucket(self, gcs):
        name = f"lake{next(NAMES)}"
        object_stores.fill_gcs(gcs, name, {})
        return name

    @pytest.fixture
    def filling(self, bucket, gcs):
        return lambda contents: object_stores.fill_gcs(gcs, bucket, contents)

    @pytest.fixture
    def opening(self, bucket, config):
        return lambda path: open_source(SourceSettings(url=f"gs://{bucket}/{path}", options=config), STATE)

    @pytest.fixture
    def missing(self, bucket, config):
        """The emulator answers 500 for a bucket that is not there, Google 404, as both do for a file."""
        found = open_source(SourceSettings(url=f"gs://{bucket}", options=config), STATE)
        found.files = lambda: found.fetch(Remote("none.csv", 0, '"x"'), Path("/dev/null"))
        return found

    @pytest.fixture
    def unreachable(self):
        options = {"service_account_key": object_stores.gcs_account("http://127.0.0.1:1"), "allow_http": "true"}
        return open_source(SourceSettings(url="gs://lake", options=options, connect_timeout=0.5), STATE)
