# A director: the IPVS table first, then keepalived, which brings the VIPs that need it.
{%- from "lvs/map.jinja" import view, names with context %}

{%- if view.problems %}

include:
  - lvs.invalid

{%- else %}

lvs-director-packages:
  pkg.installed:
    - pkgs: {{ names.packages | json }}

# Not kmod.present with persist: it forgets the modules that came in as another one's dependency.
lvs-director-modules:
  cmd.run:
    - name: modprobe -a {{ view.modules | join(" ") }}
    - creates:
{%- for module in view.modules %}
      - /sys/module/{{ module }}
{%- endfor %}

lvs-director-modules-at-boot:
  file.managed:
    - name: /etc/modules-load.d/saltext-lvs-director.conf
    - contents: {{ (["# Salt writes this file (state lvs.director)."] + view.modules) | json }}
    - mode: '0644'
    - makedirs: True

lvs-ipvs-table:
  ipvs.managed:
    - require:
      - cmd: lvs-director-modules

lvs-keepalived-config:
  keepalived.config:
    - name: {{ names.config }}
    - require:
      - pkg: lvs-director-packages
      - ipvs: lvs-ipvs-table

# Never restarted for a change: that would take the VIPs down and lose what keepalived knows.
lvs-keepalived-service:
  service.running:
    - name: {{ names.service }}
    - enable: True
    - reload: True
    # For ps, where the init script knows no "status": the program, not whatever names its files.
    - sig: /usr/sbin/keepalived
    - watch:
      - keepalived: lvs-keepalived-config

{%- endif %}
