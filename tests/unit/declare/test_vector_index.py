"""What an index over a vector may be declared with."""

from datetime import datetime

import pytest

from mainspring.declare.aggregate import count, first, last
from mainspring.declare.app import App
from mainspring.declare.data import Entity
from mainspring.declare.record import Field, Record
from mainspring.errors import DeclarationError
from mainspring.plan.build import build_plan


class Item(Record):
    shop: int
    image: list[float] = Field(length=3)
    price: float
    photo: bytes
    at: datetime


def planned(filters=(), feature="image", metric="cosine", online=True):
    app = App("test")
    items = app.source(Item, time="at", called="items")
    catalogue = app.features(
        items,
        entity=Entity("shop"),
        online=online,
        called="catalogue",
        image=last("image"),
        oldest=first("image", "1h"),
        price=last("price"),
        photo=last("photo"),
        n=count("1h"),
    )
    app.vector_index(catalogue[feature], filters=filters, metric=metric, called="similar")
    return build_plan(app)


def refused(*given, **named):
    with pytest.raises(DeclarationError) as error:
        planned(*given, **named)
    assert error.value.origin
    return error.value


def test_a_vector_index_hangs_below_its_view():
    node = planned(["price", "shop"]).node("/vector_index/similar")
    assert node.inputs == ("/feature_view/catalogue",)
    assert node.spec == {"feature": "image", "filters": ["price", "shop"], "metric": "cosine"}


@pytest.mark.parametrize("feature", ["price", "oldest", "n"])
def test_only_vectors_of_the_newest_row_are_indexed(feature):
    assert refused(feature=feature).code == "MS-1121"


@pytest.mark.parametrize("name", ["size", "n", "photo", "image"])
def test_filters_are_features_that_can_be_compared(name):
    error = refused([name])
    assert error.code == "MS-1122"
    assert "price" in error.fix


def test_other_misuse():
    assert refused(["price", "price"]).code == "MS-1122"
    assert refused(online=False).code == "MS-1123"
    assert refused(metric="euclid").code == "MS-1034"
    assert refused("price").code == "MS-1036"
    with pytest.raises(DeclarationError, match="which is no Feature") as error:
        App("test").vector_index("catalogue.image")
    assert error.value.code == "MS-1033"
