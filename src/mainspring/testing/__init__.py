"""What users import in their tests, `open_project`; beside it the contract suites that adapters run."""

from mainspring.testing.project import Project, open_project

__all__ = ["Project", "open_project"]
