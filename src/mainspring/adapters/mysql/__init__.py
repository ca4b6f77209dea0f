"""Sources in MySQL or MariaDB."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="source",
    name="mysql",
    factory="mainspring.adapters.mysql.source:open_source",
    settings="mainspring.ports.source:SourceSettings",
    schemes=("mysql", "mariadb"),
    modules=("pymysql", "pyarrow"),
    extra="mysql",
    capabilities={"reads": "relation"},
)
