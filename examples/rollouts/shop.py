"""Two models of the same customers, put together by a function, and a careful way to a new version of one of them."""

from datetime import datetime

import numpy as np

from mainspring import App, Entity, Field, Frame, Model, Part, Record, Rows, avg, count

app = App("shop")
customer = Entity("customer")


class Visit(Record):
    """A visit of a customer."""

    customer: str
    amount: float | None = Field(ge=0, unit="EUR")
    at: datetime
    returned: bool | None  # known a month later


visits = app.source(Visit, time="at")
habits = app.features(visits, entity=customer, visits_30d=count("30d"), amount_30d=avg("amount", "30d"))


@app.model(inputs=[habits, visits.amount], label=visits.returned, metric="roc_auc")
def returns(x: Frame, y: Frame) -> Model:
    """Logistic regression on the habits of the last thirty days."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
    return Model(pipeline.fit(x.numpy(), y.numpy()))


@app.model(inputs=[habits.visits_30d, visits.amount], label=visits.returned, metric="roc_auc")
def habitual(x: Frame, y: Frame) -> Model:
    """Trees on how often the customer came, and on this visit alone."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return Model(HistGradientBoostingClassifier(max_iter=20, max_leaf_nodes=7).fit(x.numpy(), y.numpy()))


# A new version of `returns` is a shadow first, then answers a twentieth of the customers, then a quarter, then all.
app.promote(returns, margin=0.01, rollout=["shadow for 10m", "5% for 10m", "25% for 30m"])
app.promote(habitual, margin=0.01)


@app.compose(returns, habitual)
def blended(x: Rows, returns: Part, habitual: Part) -> object:
    """Both opinions, the amounts capped before; who spent nothing comes back for nobody."""
    capped = x.put(amount=np.minimum(x["amount"], 500.0))
    score = 0.6 * returns(capped) + 0.4 * habitual(capped)
    return np.where(x["amount"] == 0.0, 0.0, score)


app.endpoint(returns, versions=2)
app.endpoint(blended, latency="20ms")
app.monitor(returns)
