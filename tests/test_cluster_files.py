"""The files in cluster/ are what their readers accept, and each reader refuses a broken variant.

No cluster is asked: Kubernetes' own schemas (kubernetes-validate), the fields of KubeRay's (below), Ray's launcher,
botocore's shape of EC2's RunInstances, yamllint, shellcheck and hadolint, all from PyPI.
"""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import botocore.session
import botocore.validate
import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.conftest import ROOT

CLUSTER = ROOT / "cluster"
KUBERNETES = "1.33"
YAML = sorted(
    [*(CLUSTER / "kuberay").glob("*.yaml"), *(CLUSTER / "ray-up").glob("*.yaml"), *(ROOT / "grids").glob("*.yaml")]
)
STYLE = (
    "{extends: default, rules: {document-start: disable, braces: {max-spaces-inside: 1}, comments:"
    " {min-spaces-from-content: 1}, line-length: {max: 140, allow-non-breakable-inline-mappings: true}}}"
)


def closed(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """The schema of an object with these fields and no others."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


# The fields of KubeRay's ray.io/v1 that may be used here: those of its API reference without the deprecated ones.
# A pod template is any object to this schema; it is checked as a Kubernetes pod.
TEXT, FLAG, COUNT, TEMPLATE = (
    {"type": "string"},
    {"type": "boolean"},
    {"type": "integer", "minimum": 0},
    {"type": "object"},
)
START_PARAMS = {"type": "object", "additionalProperties": TEXT}
GROUP = {"rayStartParams": START_PARAMS, "template": TEMPLATE, "resources": START_PARAMS, "labels": START_PARAMS}
WORKERS = closed(
    ("groupName", "template", "minReplicas", "maxReplicas"),
    **GROUP,
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    idleTimeoutSeconds=COUNT,
    numOfHosts=COUNT,
)
RAY_CLUSTER = closed(
    ("headGroupSpec",),
    rayVersion=TEXT,
    authOptions=closed(mode={"enum": ["token", "disabled"]}, secretName=TEXT),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=closed(version={"enum": ["v1", "v2"]}, idleTimeoutSeconds=COUNT),
    headGroupSpec=closed(
        ("template",), **GROUP, serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]}, enableIngress=FLAG
    ),
    workerGroupSpecs={"type": "array", "items": WORKERS},
    suspend=FLAG,
)
RAY_JOB = closed(
    (),
    entrypoint=TEXT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    backoffLimit=COUNT,
    activeDeadlineSeconds=COUNT,
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    rayClusterSpec=RAY_CLUSTER,
    clusterSelector=START_PARAMS,
    runtimeEnvYAML=TEXT,
    suspend=FLAG,
)
META = closed((), name=TEXT, generateName=TEXT, labels=START_PARAMS, annotations=START_PARAMS)
SPECS = {"RayCluster": RAY_CLUSTER, "RayJob": RAY_JOB}


def load(name: str) -> Any:
    return yaml.safe_load((CLUSTER / name).read_text())


def check_ray(manifest: dict[str, Any]) -> None:
    """Refuse what KubeRay would, and pods that Kubernetes would."""
    schema = closed(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "ray.io/v1"},
        kind={"enum": list(SPECS)},
        metadata=META,
        spec=SPECS[manifest["kind"]],
    )
    jsonschema.validate(manifest, schema)
    for group in groups(manifest):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, **group["template"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def groups(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = manifest["spec"].get("rayClusterSpec", manifest["spec"])
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name(name)), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_kuberay_would_accept(name: str) -> None:
    manifest = load(f"kuberay/{name}.yaml")
    check_ray(manifest)
    head, workers = groups(manifest)
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"]
    for group in (head, workers):
        spec = group["template"]["spec"]
        mounted = {mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]} == {"shared", "shm"}
        assert spec["containers"][0]["workingDir"] == "/shared"
    assert workers["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "8"


def test_both_manifests_describe_the_same_cluster() -> None:
    cluster, job = load("kuberay/raycluster.yaml")["spec"], load("kuberay/rayjob.yaml")["spec"]
    assert job["rayClusterSpec"] == cluster
    grid = job["entrypoint"].split()[-1].removeprefix("/opt/kdray/")
    assert (ROOT / grid).is_file()
    assert cluster["authOptions"] == {"mode": "token"}


def test_the_volume_is_one_that_many_nodes_write_to() -> None:
    claim = load("kuberay/store.yaml")
    kubernetes_validate.validate(claim, KUBERNETES, strict=True)
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    volumes = groups(load("kuberay/raycluster.yaml"))[0]["template"]["spec"]["volumes"]
    assert {"name": "shared", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}} in volumes


BROKEN_RAY: dict[str, tuple[list[Any], Any]] = {
    "an old version": (["apiVersion"], "ray.io/v1alpha1"),
    "a misspelt field": (["spec", "workerGroupSpec"], []),
    "an unknown way to authenticate": (["spec", "authOptions", "mode"], "password"),
    "a number that must be text": (["spec", "headGroupSpec", "rayStartParams", "num-cpus"], 0),
    "no head": (["spec", "headGroupSpec"], None),
    "text for a count": (["spec", "workerGroupSpecs", 0, "replicas"], "two"),
    "a container without a name": (["spec", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "name"], None),
    "a misspelt field of a pod": (["spec", "headGroupSpec", "template", "spec", "tolerance"], []),
    "a volume of two kinds of type": (
        ["spec", "workerGroupSpecs", 0, "template", "spec", "volumes", 1, "emptyDir"],
        "Memory",
    ),
}


@pytest.mark.parametrize("name", BROKEN_RAY)
def test_a_broken_ray_cluster_is_refused(name: str) -> None:
    manifest, (where, value) = copy.deepcopy(load("kuberay/raycluster.yaml")), BROKEN_RAY[name]
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check_ray(changed(manifest, where, value))


def changed(tree: Any, where: list[Any], value: Any) -> Any:
    """`tree` with the value at a path replaced, or removed if it is None."""
    *parents, last = where
    node = tree
    for key in parents:
        node = node[key]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return tree


def check_launcher(config: dict[str, Any]) -> None:
    """Refuse what `ray up` would, and what EC2's RunInstances would."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(config))
    shape = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for kind in config["available_node_types"].values():
        report = botocore.validate.ParamValidator().validate(
            {"MinCount": 1, "MaxCount": 1, **kind["node_config"]}, shape
        )
        assert not report.has_errors(), report.generate_report()


@pytest.mark.slow
def test_ray_up_would_accept() -> None:
    config = load("ray-up/aws.yaml")
    check_launcher(config)
    workers = config["available_node_types"]["h100"]
    assert workers["min_workers"] == workers["max_workers"] == config["max_workers"]
    image = config["docker"]["image"]
    assert image == groups(load("kuberay/raycluster.yaml"))[0]["template"]["spec"]["containers"][0]["image"]


BROKEN_LAUNCHER: dict[str, tuple[list[Any], Any]] = {
    "no provider": (["provider"], None),
    "a misspelt field": (["worker_start_ray_command"], []),
    "a head of no type": (["head_node_type"], "large"),
    "more workers of a type than nodes": (["available_node_types", "h100", "min_workers"], 9),
    "a misspelt field of an instance": (["available_node_types", "h100", "node_config", "ImageID"], "ami-0"),
    "text for a size": (
        ["available_node_types", "head", "node_config", "BlockDeviceMappings", 0, "Ebs", "VolumeSize"],
        "256",
    ),
}


@pytest.mark.parametrize("name", BROKEN_LAUNCHER)
def test_a_broken_launcher_file_is_refused(name: str) -> None:
    where, value = BROKEN_LAUNCHER[name]
    with pytest.raises((AssertionError, ValueError, KeyError, jsonschema.ValidationError)):
        check_launcher(changed(load("ray-up/aws.yaml"), where, value))


@pytest.mark.slow
def test_scripts_and_yaml_have_nothing_to_complain_of() -> None:
    assert tool("yamllint", "--strict", "-d", STYLE, *map(str, YAML)).stdout == ""
    assert tool("shellcheck", str(CLUSTER / "mlflow.sh"), str(CLUSTER / "slurm" / "kdray.sbatch")).stdout == ""
    assert tool("hadolint", str(CLUSTER / "Dockerfile")).stdout == ""


@pytest.mark.parametrize(
    ("command", "file", "before", "after"),
    [
        (("yamllint", "--strict", "-d", STYLE), "kuberay/store.yaml", "kind: ", "kind: Pod\nkind: "),
        (("shellcheck",), "slurm/kdray.sbatch", 'cd "$SLURM_SUBMIT_DIR"', "cd $SLURM_SUBMIT_DIR"),
        (("shellcheck",), "mlflow.sh", 'mkdir -p "$folder"', "mkdir -p $folder"),
        (("hadolint",), "Dockerfile", "FROM python:3.11-slim-bookworm", "FROM python:latest"),
    ],
)
def test_a_broken_file_is_complained_of(
    command: tuple[str, ...], file: str, before: str, after: str, tmp_path: Path
) -> None:
    text = (CLUSTER / file).read_text()
    assert before in text
    broken = tmp_path / Path(file).name
    broken.write_text(text.replace(before, after))
    assert tool(*command, str(broken)).returncode != 0


def test_the_image_has_what_the_project_is_made_of() -> None:
    lines = [line.split() for line in (CLUSTER / "Dockerfile").read_text().splitlines()]
    copied = [name for line in lines if line and line[0] == "COPY" for name in line[1:-1]]
    assert all((ROOT / name).exists() for name in copied)
    assert {"kdray", "grids", "pyproject.toml", "cluster/constraints.txt"} <= set(copied)
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = re.findall(r"EXTRAS=([\w,]+)", (CLUSTER / "Dockerfile").read_text())
    assert asked == ["qlora,vllm", "qlora"]
    assert {name for names in asked for name in names.split(",")} <= known.keys()
    assert ["ARG", "EXTRAS=qlora"] in lines
    assert any(".[${EXTRAS}]" in word for line in lines for word in line)
    pinned = (CLUSTER / "constraints.txt").read_text()
    [left_out] = re.findall(r"sed -i -E '/\^\(([\w|]+)\)==/d'", (CLUSTER / "Dockerfile").read_text())
    assert all(f"\n{name}==" in pinned for name in left_out.split("|")), "of vLLM's image"
    assert f"ray=={load('kuberay/raycluster.yaml')['spec']['rayVersion']}\n" in pinned


def test_a_server_whose_first_start_was_cut_off_gets_all_of_its_secrets(tmp_path: Path) -> None:
    (tmp_path / "mlflow").write_text("#!/bin/sh\n")
    (tmp_path / "mlflow").chmod(0o755)
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "credentials").write_text("[mlflow]\n")
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    subprocess.run([CLUSTER / "mlflow.sh", folder], env={**os.environ, "PATH": path}, check=True, capture_output=True)
    password = re.search("mlflow_tracking_password = (.+)", (folder / "credentials").read_text())
    assert password
    assert f"admin_password = {password[1]}\n" in (folder / "auth.ini").read_text()
    assert (folder / "key").read_text().strip()
