"""Logs of messages that sources are in, against the one contract: Kafka, by two brokers that are not Kafka itself."""

import itertools
from pathlib import Path

import pytest

import kafka_broker
from mainspring.adapters.kafka.source import open_source
from mainspring.errors import MainspringError
from mainspring.ports.source import SourceSettings
from mainspring.testing.topics import TopicContract

STATE = Path("/nowhere")
NAMES = itertools.count()


@pytest.fixture(scope="module", params=["librdkafka", "tansu"])
def broker(request):
    with {"librdkafka": kafka_broker.running, "tansu": kafka_broker.tansu}[request.param]() as found:
        yield found


class TestKafka(TopicContract):
    @pytest.fixture
    def name(self, broker):
        name = f"orders{next(NAMES)}"
        broker.make(name)
        return name

    @pytest.fixture
    def topic(self, broker, name):
        found = open_source(SourceSettings(url=f"kafka://{broker.place}/{name}"), STATE)
        yield found
        found.close()

    @pytest.fixture
    def sending(self, broker, name):
        return lambda partition, values: broker.send(name, partition, values)

    @pytest.fixture
    def missing(self, broker):
        options = {"allow_auto_create_topics": "false"}
        found = open_source(SourceSettings(url=f"kafka://{broker.place}/nowhere", options=options), STATE)
        yield found
        found.close()

    @pytest.fixture
    def unreachable(self):
        options = {"sasl_username": "me", "sasl_password": "secret-word"}
        found = open_source(SourceSettings(url="kafka://127.0.0.1:1/orders", options=options, connect_timeout=1), STATE)
        yield found
        found.close()

    def test_options_that_are_none_and_urls_that_hold_a_password(self, broker):
        for settings in (
            SourceSettings(url=f"kafka://{broker.place}/orders", options={"colour": "red"}),
            SourceSettings(url="kafka://me:secret-word@here:9092/orders"),
            SourceSettings(url=f"kafka://{broker.place}"),
        ):
            with pytest.raises(MainspringError) as caught:
                open_source(settings, STATE).ends()
            assert caught.value.code == "MS-3042"
            assert "secret-word" not in str(caught.value.as_dict())
