# A FEMTask: what one data holder runs. Field names follow the platform's templates and were not validated there.
cwlVersion: v1.2
class: FEMTask
id: ctfed-site
label: A centre's node of ctfed
baseCommand: [] # the image's entrypoint
arguments: [prepare, --site, /sandbox/ctfed/site.yaml]
inputs: []
outputs:
  - id: log
    type: File
    outputBinding: {glob: ctfed/output/egress/*}
requirements:
  DockerRequirement: {dockerPull: "ctfed-site:0.1.0"}
  EnvVarRequirement: {envDef: {CTFED_TMP: /tmp/ctfed}}
  ResourceRequirement: {coresMin: 4, ramMin: 16384}
expectedExitCode: 0
metadata: {orchestrator: {network: bridge}}
