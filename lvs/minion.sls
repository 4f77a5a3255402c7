# What every minion of the cluster needs in Salt itself: pyroute2, and a few lines of configuration.
{%- from "lvs/map.jinja" import view, names, conf_dir with context %}

{%- if view.problems %}

include:
  - lvs.invalid

{%- else %}

lvs-pyroute2:
{%- if view.has_pyroute2 %}
  test.succeed_without_changes:
    - name: pyroute2
    - comment: Salt's Python has pyroute2.
{%- else %}
  # By the module and not by pip.installed, which asks pip four times more.
  module.run:
    - pip.install:
      - pkgs: pyroute2 >= 0.9.6
    - reload_modules: True
{%- endif %}

lvs-minion-config:
  file.managed:
    - name: {{ conf_dir }}/minion.d/saltext-lvs.conf
    - source: salt://lvs/files/minion.conf.jinja
    - template: jinja
    - mode: '0644'
    - makedirs: True

# Salt reads its configuration only when it starts. The restart waits for the end of this run.
lvs-minion-restart:
  module.run:
    - lvs.restart_minion:
      - service: {{ names.minion_service }}
    - order: last
    - onchanges:
      - file: lvs-minion-config

{%- endif %}
