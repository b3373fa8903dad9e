//! The parts of Kubernetes' objects that are needed. Reading no more keeps a list of a thousand pods small and quick.
//!
//! InferencePool: GAIE, `api/v1/inferencepool_types.go`. The others: Kubernetes' API reference.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::Deserialize;

/// A field that is `null` is as good as none.
macro_rules! object {
    ($name:ident, $group:literal, $version:literal, $plural:literal, { $($field:ident: $type:ty),* $(,)? }) => {
        #[derive(Clone, Debug, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub(super) struct $name {
            #[serde(default)]
            pub(super) metadata: ObjectMeta,
            $(#[serde(default)] pub(super) $field: Option<$type>,)*
        }

        impl kube::Resource for $name {
            type DynamicType = ();
            type Scope = NamespaceResourceScope;

            fn kind((): &()) -> Cow<'_, str> {
                stringify!($name).into()
            }

            fn group((): &()) -> Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> Cow<'_, str> {
                $version.into()
            }

            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

object!(InferencePool, "inference.networking.k8s.io", "v1", "inferencepools", { spec: PoolSpec });
object!(Service, "", "v1", "services", { spec: ServiceSpec });
object!(EndpointSlice, "discovery.k8s.io", "v1", "endpointslices", { endpoints: Vec<SliceEndpoint>, ports: Vec<SlicePort> });
object!(Pod, "", "v1", "pods", { spec: PodSpec, status: PodStatus });

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PoolSpec {
    pub(super) selector: Option<PoolSelector>,
    pub(super) target_ports: Option<Vec<TargetPort>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PoolSelector {
    pub(super) match_labels: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct TargetPort {
    /// Wide, so that a number that is no port spoils no more than itself.
    pub(super) number: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct ServiceSpec {
    pub(super) selector: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SliceEndpoint {
    #[serde(default)]
    pub(super) conditions: SliceConditions,
    pub(super) target_ref: Option<TargetRef>,
    pub(super) zone: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct SliceConditions {
    /// Absent means yes.
    pub(super) ready: Option<bool>,
    pub(super) terminating: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct TargetRef {
    pub(super) kind: Option<String>,
    pub(super) name: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct SlicePort {
    pub(super) name: Option<String>,
    pub(super) port: Option<i64>,
    pub(super) protocol: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodSpec {
    pub(super) node_name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodStatus {
    pub(super) phase: Option<String>,
    #[serde(rename = "podIP")]
    pub(super) pod_ip: Option<String>,
    pub(super) conditions: Option<Vec<Condition>>,
    pub(super) container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContainerStatus {
    #[serde(default)]
    pub(super) restart_count: i64,
}
