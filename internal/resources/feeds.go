package resources

import (
	"context"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// Feeds are where packages come from. The built-in one is made with its space.
func Feeds() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.Feed]{
		Name: "feeds", ItemType: "Feed", Prefix: "Feeds", Slugged: true,
		Permissions: resource.Permissions{View: "FeedView", Create: "FeedEdit", Edit: "FeedEdit", Delete: "FeedEdit"},
		Filters:     []resource.Filter{{Param: "feedType", Path: "FeedType"}},
		Links: map[string]string{
			"SearchPackagesTemplate":        "/api/{space}/feeds/{Id}/packages/search{?term,skip,take,includePreRelease,includeReleaseNotes}",
			"SearchPackageVersionsTemplate": "/api/{space}/feeds/{Id}/packages/versions{?packageId,skip,take,includePreRelease,versionRange,preReleaseTag,filter,includeReleaseNotes}",
			"PackagesTemplate":              "/api/{space}/packages{/id}{?nuGetPackageId,filter,latest,skip,take,includeNotes}",
		},
		Prepare: func(v *octopus.Feed) {
			if len(v.PackageAcquisitionLocationOptions) == 0 {
				v.PackageAcquisitionLocationOptions = octopus.List[octopus.AcquisitionLocation]{octopus.AcquireOnServer, octopus.AcquireOnTarget}
			}
		},
		Check: func(_ context.Context, _ resource.Reader, old, v *octopus.Feed) error {
			if v.FeedType == "" {
				return fault.InvalidField("FeedType", "FeedType is empty; give one such as NuGet, Docker, Maven, GitHub or Helm.")
			}
			if own := BuiltinFeed(ident.SpaceID(v.SpaceID)); v.FeedType == octopus.FeedBuiltIn && v.ID != own {
				return fault.InvalidField("FeedType", "FeedType is 'BuiltIn'; a space has one built-in feed, '%s'. Give another type.", own)
			}
			if old == nil {
				return nil
			}
			if old.FeedType != v.FeedType {
				return fault.InvalidField("FeedType", "FeedType is '%s'; a feed stays what it is, '%s'. Create another one instead.", v.FeedType, old.FeedType)
			}
			return nil
		},
		InTx: func(_ context.Context, _ resource.Writer, c resource.Change[octopus.Feed]) error {
			if c.Op == resource.Deleted && c.Old.FeedType == octopus.FeedBuiltIn {
				return fault.New(fault.Conflict, "The built-in feed cannot be deleted; delete its packages instead.")
			}
			return nil
		},
	})
}
