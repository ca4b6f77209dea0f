"""mainspring.toml, profiles and the environment as typed settings, each value with its origin."""
