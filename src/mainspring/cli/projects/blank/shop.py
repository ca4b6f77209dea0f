"""Will this customer come back within the month? A first app: change the record, the features and the model."""

from datetime import datetime

from mainspring import App, Entity, Field, Frame, Model, Record, avg, count

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


app.promote(returns, margin=0.01)
app.endpoint(returns)
app.monitor(returns)
