# keepalived keeps the IPVS table itself: its checks outlive a stopped minion. The directors have addresses, so that it
# checks real servers through the VIP, too.
lvs:
  name: by-keepalived
  directors:
    kept-lb1: {priority: 150, address: 10.10.30.11}
    kept-lb2: {priority: 50, address: 10.10.30.12}
  real_servers:
    kept-rs1: 10.10.30.41
    kept-rs2: 10.10.30.42
  vrrp_instances:
    VirtIP_30:
      interface: eth0
      virtual_router_id: 30
      unicast: True
      preempt_delay: 60
      garp_master_refresh: 60
      track_file: [step_down]
      virtual_ipaddress: [10.10.30.10]
  sync_daemon: {interface: eth0, vrrp_instance: VirtIP_30, syncid: 30}
  virtual_servers:
    web:
      address: 10.10.30.10
      port: 80
      persistence: 5
      managed_by: keepalived
      check: {types: [path], interval: 5, connect_timeout: 2, fall: 2}
      checkers:
        - HTTP_GET: {url: {path: /health, status_code: 200}, connect_timeout: 2, retry: 1, delay_before_retry: 2}
      quorum: 10
      sorry_server: {address: 10.10.30.49}
      real_servers:
        kept-rs1: {weight: 50}
        kept-rs2: {weight: 50}
  keepalived:
    global_defs: {vrrp_garp_master_repeat: 3}
    track_files:
      # echo 110 > /etc/keepalived/step_down on a director, and the other one takes the VIP; echo 0 ends that.
      step_down: {file: /etc/keepalived/step_down, weight: -1, init_file: 0}
