# Which minion gets which environment's cluster.
#
# By minion id, never by grain: a minion says its grains itself, and a real server that calls itself a director
# would be given the directors' passwords. The ids are those of the cluster's own description.
production:
  'lb1,lb2,rs1,rs2,kvm1':
    - match: list
    - lvs
  'lb1,lb2':
    - match: list
    - lvs_secrets

staging:
  'staging-lb1,staging-rs1,staging-rs2':
    - match: list
    - lvs
  'staging-lb1':
    - lvs_secrets

by_keepalived:
  'kept-lb1,kept-lb2,kept-rs1,kept-rs2':
    - match: list
    - lvs
  'kept-lb1,kept-lb2':
    - match: list
    - lvs_secrets
