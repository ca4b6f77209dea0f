"""Mainspring's own routes: entity-keyed prediction, labels, pushes."""
