"""Check of the address of MLflow, before anything is built or asked."""

from __future__ import annotations

import importlib.metadata
import os
import urllib.parse

from kdray.spec.errors import InputError

DATABASES = ("postgresql", "mysql", "sqlite", "mssql")
HOSTED = ("databricks", "databricks-uc", "uc")  # whole addresses too
TRACKING = ("http", "https", "file", *DATABASES, *HOSTED)
FOLDERS_ALLOWED = "MLFLOW_ALLOW_FILE_STORE"  # without it MLflow writes into no folder any more


def check_tracking(uri: str | None, *, served: bool = False) -> None:
    """Whether MLflow can take `uri`, and if `served` whether its own server shows that. A password is not shown.

    Raises:
        InputError: it cannot.
    """
    try:
        parts = urllib.parse.urlsplit(uri or "")
        scheme = parts.scheme.partition("+")[0]  # mysql+pymysql
        lacks = (scheme in ("http", "https") and not parts.hostname) or parts.port == 0
    except ValueError as error:
        raise InputError(
            "runtime.mlflow", f"no address ({error})", "write http://host:port, or another tracking URI"
        ) from None
    if lacks:
        raise InputError("runtime.mlflow", f"a {scheme} address without a host or port", "write http://host:port")
    if scheme in DATABASES and "://" not in (uri or ""):
        raise InputError(
            "runtime.mlflow",
            f"'{scheme}:' without ://",
            "write sqlite:////path/of/mlflow.db, or another database's URL",
        )
    if (
        uri
        and scheme in ("", "file")
        and uri not in HOSTED
        and os.environ.get(FOLDERS_ALLOWED, "").lower() not in ("true", "1")
    ):
        allowed = (
            "write sqlite:////path/of/mlflow.db, or http://host:port (MLflow writes into folders only with"
            f" {FOLDERS_ALLOWED}=true)"
        )
        raise InputError("runtime.mlflow", f"'{uri}' is a folder or file", allowed)
    if scheme == "sqlite" and (parts.netloc or not parts.path.strip("/")):
        raise InputError("runtime.mlflow", f"'{uri}' names no file", "write sqlite:////path/of/mlflow.db")
    if (
        scheme
        and scheme not in TRACKING
        and not importlib.metadata.entry_points(group="mlflow.tracking_store", name=scheme)
    ):
        raise InputError("runtime.mlflow", f"the scheme '{scheme}'", f"MLflow knows {', '.join(TRACKING)}")
    if served and scheme not in ("", "http", "https", "file", *DATABASES):  # a server's address is told apart later
        raise InputError(
            "runtime.mlflow", f"the scheme '{scheme}' with --serve", "only files and databases are served here"
        )
