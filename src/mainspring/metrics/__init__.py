"""How well predictions fit what happened: pure estimators and their intervals, for training and for monitoring."""
