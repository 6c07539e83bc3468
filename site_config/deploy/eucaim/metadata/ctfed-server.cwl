# A FEMTask: the aggregator. It sees totals of all sites and no site's own numbers.
cwlVersion: v1.2
class: FEMTask
id: ctfed-server
label: The server of ctfed
baseCommand: []
arguments: [serve, /sandbox/ctfed/study.yaml, --folder, /sandbox/ctfed/kit/server, --out, /sandbox/ctfed/out, --host, 0.0.0.0]
inputs: []
outputs:
  - id: report
    type: File
    outputBinding: {glob: ctfed/out/report.html}
requirements:
  DockerRequirement: {dockerPull: "ctfed-server:0.1.0"}
  ResourceRequirement: {coresMin: 2, ramMin: 4096}
expectedExitCode: 0
metadata: {orchestrator: {network: overlay}}
