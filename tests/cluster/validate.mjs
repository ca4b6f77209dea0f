// Holds custom objects (a JSON list on stdin) against the schemas of their definitions; prints what does not fit.
import { readFileSync } from "node:fs";
import { ExternalSecret } from "@kubernetes-models/external-secrets/external-secrets.io/v1/ExternalSecret";
import { HTTPRoute } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/HTTPRoute";
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject";
import { PrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor";

const kinds = { ExternalSecret, HTTPRoute, PrometheusRule, ScaledObject, ServiceMonitor };
const found = [];
for (const object of JSON.parse(readFileSync(0, "utf8"))) {
  const Kind = kinds[object.kind];
  if (!Kind) continue;
  try {
    new Kind(object).validate();
    found.push({ kind: object.kind, fault: "" });
  } catch (error) {
    found.push({ kind: object.kind, fault: String(error.message) });
  }
}
console.log(JSON.stringify(found));
