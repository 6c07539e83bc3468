# A FEMBundle: one server and several sites.
cwlVersion: v1.2
class: FEMBundle
id: ctfed
mode: federated
tasks:
  - {id: server, run: ctfed-server.cwl, role: server, multiplicity: single}
  - {id: site, run: ctfed-site.cwl, role: client, multiplicity: multiple}
