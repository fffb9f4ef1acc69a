"""Hooks of the documentation site (mkdocs.yml), which generate pages when it is built."""
