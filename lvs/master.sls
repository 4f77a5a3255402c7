# The master's part: which events its reactor answers. Apply it to the minion on the master.
{%- set conf_dir = salt["config.get"]("lvs_master_conf_dir", "/etc/salt") %}

lvs-master-config:
  file.managed:
    - name: {{ conf_dir }}/master.d/saltext-lvs.conf
    - source: salt://lvs/files/master.conf
    - mode: '0644'
    - makedirs: True
