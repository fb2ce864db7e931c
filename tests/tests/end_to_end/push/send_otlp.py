"""Sends telemetry of a made-up model server with the OpenTelemetry SDK, each second until it is killed.

Arguments: grpc or http, the endpoint, the service.instance.id, the queue depth.
"""

import sys
import time

from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

protocol, endpoint, instance, queue_depth = sys.argv[1:]
if protocol == "grpc":
    from grpc import Compression
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

    exporter = OTLPMetricExporter(
        endpoint=endpoint, insecure=endpoint.startswith("http://"), compression=Compression.Gzip
    )
else:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    exporter = OTLPMetricExporter(endpoint=endpoint)

reader = PeriodicExportingMetricReader(exporter, export_interval_millis=1000)
provider = MeterProvider(resource=Resource({"service.instance.id": instance}), metric_readers=[reader])
meter = provider.get_meter("server")
meter.create_observable_gauge(
    "vllm.num_requests_waiting", callbacks=[lambda _: [Observation(int(queue_depth))]], unit="{request}"
)
meter.create_gauge("python.unrelated").set(1)
tokens = meter.create_counter("vllm.generation_tokens", unit="{token}")
first_token = meter.create_histogram("vllm.time_to_first_token", unit="s")
while True:
    tokens.add(10, {"model_name": "chat"})
    first_token.record(0.25, {"model_name": "chat"})
    time.sleep(0.1)
