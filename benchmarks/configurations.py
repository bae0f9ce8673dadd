"""The configurations that a benchmark's processes run with, as templates for `str.format`; `servers` fills them in."""

NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1; {user}
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 300; client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; scgi_temp_path {folder}/s; uwsgi_temp_path {folder}/u;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ default_type application/json; return 200 '{answer}'; }}
  }}
}}
"""

LITELLM = """
model_list:
  - model_name: benchmark
    litellm_params: {{model: openai/benchmark, api_base: "{base_url}", api_key: none}}
litellm_settings: {{telemetry: false, num_retries: 0}}
"""

ENVOY = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: floor
          route_config:
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: upstream}}}}]}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: upstream
    load_assignment:
      cluster_name: upstream
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}
"""

DISPATCHER = """
[scorer]
address = "{scorer}"
timeout = 1.0

[[models]]
name = "gpt-4-1106-preview"
price = {{ input = 10, output = 30 }}
max_output_tokens = 4096

[[models]]
name = "Mixtral-8x7B-Instruct-v0.1"
price = {{ input = 0.6, output = 0.6 }}
max_output_tokens = 4096

[[deployments]]
name = "strong"
model = "gpt-4-1106-preview"
base_url = "{upstream}"

[[deployments]]
name = "weak"
model = "Mixtral-8x7B-Instruct-v0.1"
base_url = "{upstream}"
"""
TENANT = """
[tenants.tenant-{number}]
strong_model = "gpt-4-1106-preview"
weak_model = "Mixtral-8x7B-Instruct-v0.1"
strong_call_share = 0.3
usd_per_hour = 100000
usd_per_day = 1000000
usd_per_month = 9000000
"""
