"""MLflow: a view of the cells, made from their files. Only this package knows MLflow."""
