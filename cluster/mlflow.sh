#!/bin/sh
# An MLflow server with a login, for grids whose runs go to one place: cluster/mlflow.sh [FOLDER] [HOST] [PORT]
# Keeps everything in FOLDER (./mlflow-server), and listens on 127.0.0.1:5000 unless told otherwise. The first call makes
# an administrator and writes the password to FOLDER/credentials, where only you can read it; it is never printed.
# Needs `pip install 'mlflow[auth]'`.
set -eu
folder=${1:-mlflow-server} host=${2:-127.0.0.1} port=${3:-5000}

umask 077
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
secret() { python3 -c 'import secrets; print(secrets.token_urlsafe(32))'; }
if [ ! -s "$folder/key" ]; then # which is written last
  password=$(secret)
  # MLflow's clients read this file as ~/.mlflow/credentials.
  printf '[mlflow]\nmlflow_tracking_username = admin\nmlflow_tracking_password = %s\n' "$password" >"$folder/credentials"
  cat >"$folder/auth.ini" <<INI
[mlflow]
default_permission = READ
database_uri = sqlite:///$folder/users.db
admin_username = admin
admin_password = $password
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
INI
  secret >"$folder/key"
fi

MLFLOW_AUTH_CONFIG_PATH="$folder/auth.ini"
MLFLOW_FLASK_SERVER_SECRET_KEY=$(cat "$folder/key")
export MLFLOW_AUTH_CONFIG_PATH MLFLOW_FLASK_SERVER_SECRET_KEY
# Nothing here needs the processes that run jobs on traces (nine, of 200 MB each).
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION="${MLFLOW_SERVER_ENABLE_JOB_EXECUTION:-false}" MLFLOW_DISABLE_TELEMETRY="${MLFLOW_DISABLE_TELEMETRY:-true}"
echo "MLflow on http://$host:$port, user admin, password in $folder/credentials"
# Behind a name of its own, list that name in MLFLOW_SERVER_ALLOWED_HOSTS, and localhost with it.
exec mlflow server --app-name basic-auth --host "$host" --port "$port" --workers 1 \
  --backend-store-uri "sqlite:///$folder/runs.db" --artifacts-destination "$folder/artifacts"
