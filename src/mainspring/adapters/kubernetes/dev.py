"""How to get one locally."""

__all__ = ["HOW"]

HOW = "kind create cluster, or minikube start; the project's own tests start an API server: tests/cluster/build.sh"
