# A director: the IPVS table first, then keepalived, which brings the VIPs that need it.
{%- from "lvs/map.jinja" import view, names with context %}
{%- from "lvs/modules.jinja" import kernel_modules %}

{%- if view.problems %}

include:
  - lvs.invalid

{%- else %}

lvs-director-packages:
  pkg.installed:
    - pkgs: {{ names.packages | json }}

{{ kernel_modules(view, "director") }}

lvs-director-sysctls:
  ipvs.sysctls:
    - settings: {{ view.ipvs.sysctls | json }}
    - config: {{ names.sysctl_dir }}/60-saltext-lvs-director.conf
    - require:
      - id: lvs-director-modules
{%- if view.ipvs.timeouts %}

lvs-director-timeouts:
  ipvs.timeouts:
    {%- for name, seconds in view.ipvs.timeouts.items() %}
    - {{ name }}: {{ seconds }}
    {%- endfor %}
    - require:
      - id: lvs-director-modules
{%- endif %}

{%- for line in view.sysctls.director | default([]) %}

# For checks through the VIP: before keepalived begins with them.
{{ line.name }}:
  sysctl.present:
    - value: {{ line.value }}
    - config: {{ names.sysctl_dir }}/60-saltext-lvs-director.conf
    - require_in:
      - keepalived: lvs-keepalived-config
{%- endfor %}

lvs-ipvs-table:
  ipvs.managed:
    - require:
      - id: lvs-director-modules
      - ipvs: lvs-director-sysctls

# A rebooted director has its table before keepalived takes the VIPs.
lvs-ipvs-at-boot:
  ipvs.at_boot:
    - require:
      - pkg: lvs-director-packages
      - ipvs: lvs-ipvs-table

# Before keepalived puts one there.
lvs-director-vips-kept:
  keepalived.vips_kept

# It reloads a keepalived that runs, and moves virtual servers between it and Salt meanwhile.
lvs-keepalived-config:
  keepalived.config:
    - name: {{ names.config }}
    - service: {{ names.service }}
    - require:
      - pkg: lvs-director-packages
      - ipvs: lvs-ipvs-table

# No watch: a restart for a change would take the VIPs down and lose what keepalived knows.
lvs-keepalived-service:
  service.running:
    - name: {{ names.service }}
    - enable: True
    # For ps, where the init script knows no "status": the program, not whatever names its files.
    - sig: {{ names.program }}
    - require:
      - keepalived: lvs-keepalived-config

# The minion's own pillar is as old as its last refresh, and from there functions and the beacon know who keeps what.
lvs-director-pillar:
  module.run:
    - lvs.refresh_pillar:
    - onchanges:
      - ipvs: lvs-ipvs-table
      # What is asked of real servers, and who acts on it, is in its files alone.
      - ipvs: lvs-ipvs-at-boot
      - keepalived: lvs-keepalived-config

{%- endif %}
