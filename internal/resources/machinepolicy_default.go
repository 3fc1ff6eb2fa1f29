package resources

import (
	"time"

	"github.com/takodeploy/tako/octopus"
)

// CompleteMachinePolicy fills in the periods and behaviours that a policy leaves
// out: clients check that none of them is empty.
func CompleteMachinePolicy(v *octopus.MachinePolicy) {
	or := func(t *octopus.TimeSpan, d time.Duration) {
		if *t == 0 {
			*t = octopus.TimeSpan(d)
		}
	}
	or(&v.PollingRequestQueueTimeout, 2*time.Minute)
	or(&v.PollingRequestMaximumMessageProcessingTimeout, 10*time.Minute)
	or(&v.ConnectionRetrySleepInterval, time.Second)
	or(&v.ConnectionRetryTimeLimit, 5*time.Minute)
	or(&v.ConnectionConnectTimeout, time.Minute)
	if v.ConnectionRetryCountLimit == 0 {
		v.ConnectionRetryCountLimit = 5
	}
	h := &v.MachineHealthCheckPolicy
	if h.HealthCheckType == "" {
		h.HealthCheckType = octopus.HealthRunScript
	}
	if h.PowerShellHealthCheckPolicy.RunType == "" {
		h.PowerShellHealthCheckPolicy.RunType = octopus.HealthScriptDefault
	}
	if h.BashHealthCheckPolicy.RunType == "" {
		h.BashHealthCheckPolicy.RunType = octopus.HealthScriptDefault
	}
	if h.HealthCheckCronTimezone == "" {
		h.HealthCheckCronTimezone = "UTC"
	}
	if v.MachineConnectivityPolicy.MachineConnectivityBehavior == "" {
		v.MachineConnectivityPolicy.MachineConnectivityBehavior = octopus.ExpectedOnline
	}
	if v.MachineCleanupPolicy.DeleteMachinesBehavior == "" {
		v.MachineCleanupPolicy.DeleteMachinesBehavior = octopus.DoNotDeleteMachines
	}
	u := &v.MachineUpdatePolicy
	if u.CalamariUpdateBehavior == "" {
		u.CalamariUpdateBehavior = octopus.CalamariOnDeployment
	}
	if u.TentacleUpdateBehavior == "" {
		u.TentacleUpdateBehavior = octopus.AgentNeverUpdate
	}
	if u.KubernetesAgentUpdateBehavior == "" {
		u.KubernetesAgentUpdateBehavior = octopus.AgentUpdate
	}
	r := &v.MachineRPCCallRetryPolicy
	if r.RetryDuration == 0 {
		r.Enabled = true
	}
	or(&r.RetryDuration, 150*time.Second)
	or(&r.HealthyMachineHealthCheckRetryDuration, 150*time.Second)
	if v.MachinePackageCacheRetentionPolicy.Strategy == "" {
		v.MachinePackageCacheRetentionPolicy.Strategy = octopus.PackageCacheDefault
	}
}
