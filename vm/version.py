"""The program's own version, as recorded with every run; pyproject.toml says the same."""

VERSION = "0.1.0"
