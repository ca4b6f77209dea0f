"""Ask whether a customer comes back, tell what was bought, and later what became of it."""

from datetime import UTC, datetime

from mainspring.client import Client, Label


def visit(url: str, customer: str, amount: float) -> bool:
    """Record a visit, and say whether the customer is expected to come back."""
    with Client(url, timeout=2.0) as client:
        client.push("visits", [{"customer": customer, "amount": amount, "at": datetime.now(UTC), "returned": None}])
        answer = client.predict("returns", {"customer": customer, "amount": amount})
        came_back = bool(answer.prediction)
        client.label([Label(answer.id, came_back)])
        return came_back
