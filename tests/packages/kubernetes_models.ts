export { Deployment } from "npm:kubernetes-models@5.1.0/apps/v1/Deployment";
export { HorizontalPodAutoscaler } from "npm:kubernetes-models@5.1.0/autoscaling/v2/HorizontalPodAutoscaler";
export { Ingress } from "npm:kubernetes-models@5.1.0/networking.k8s.io/v1/Ingress";
export { NetworkPolicy } from "npm:kubernetes-models@5.1.0/networking.k8s.io/v1/NetworkPolicy";
export { PodDisruptionBudget } from "npm:kubernetes-models@5.1.0/policy/v1/PodDisruptionBudget";
export { Service } from "npm:kubernetes-models@5.1.0/v1/Service";
