"""The catalog port on Postgres, for several replicas."""
