"""The smallest pipeline that the emulated clusters take for one of ours."""

PACKAGE = """
pipelineInfo: {name: quickstart}
schemaVersion: 2.1.0
sdkVersion: kfp-2.13.0
components: {NODE: {executorLabel: NODE}}
deploymentSpec:
  executors: {NODE: {container: {image: "cortexflow:latest", command: ["COMMAND"], args: []}}}
root:
  dag:
    tasks:
      NODE: {componentRef: {name: NODE}, taskInfo: {name: NODE}}
  inputDefinitions:
    parameters:
      dataset: {parameterType: STRING}
      registry: {parameterType: STRING}
"""


def package(node: str = "Nothing", command: str = "true") -> str:
    """One node that runs one command, as YAML; its name says what its failure means."""
    return PACKAGE.replace("NODE", node).replace("COMMAND", command)
