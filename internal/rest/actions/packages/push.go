package packages

import (
	"errors"
	"io"
	"mime/multipart"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// overwrite reads what to do with a version of a package that is there.
func overwrite(r *rest.Request) (feed.Overwrite, error) {
	return overwriteAs(r, r.Query("overwriteMode"), administer)
}

// overwriteAs reads what to do with what is there; to replace it the caller must
// hold a permission.
func overwriteAs(r *rest.Request, text, permission string) (feed.Overwrite, error) {
	mode, err := feed.ParseOverwrite(text)
	if err != nil {
		return "", err
	}
	if replace, err := r.QueryBool("replace", false); err != nil {
		return "", err
	} else if replace {
		mode = feed.Replace
	}
	if mode == feed.Replace {
		return mode, r.Allow(permission, rest.Target{})
	}
	return mode, nil
}

// upload finds the one file of a multipart body, which is read as a stream.
func upload(r *rest.Request) (*multipart.Part, error) {
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, fault.InvalidField("Content-Type", "The request is no multipart/form-data; send the package as one file part.")
	}
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return nil, fault.InvalidField("file", "The request has no file; send the package as one part with a file name such as Acme.Web.1.2.0.zip.")
		}
		if err != nil {
			return nil, cutOff()
		}
		if part.FileName() != "" {
			return part, nil
		}
	}
}

func cutOff() error {
	return fault.New(fault.Invalid, "The upload ended early; send the package again.")
}

// store answers a push, by whichever way of storing.
func store(r *rest.Request, how func(file *multipart.Part, mode feed.Overwrite) (*feed.Package, bool, error)) (any, error) {
	mode, err := overwrite(r)
	if err != nil {
		return nil, err
	}
	file, err := upload(r)
	if err != nil {
		return nil, err
	}
	p, created, err := how(file, mode)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, cutOff()
	case err != nil:
		return nil, err
	}
	doc := document(r, p)
	if created {
		return rest.Created{Body: doc, Location: doc.Links["Self"]}, nil
	}
	return doc, nil
}

func (a *api) push(r *rest.Request) (any, error) {
	return store(r, func(file *multipart.Part, mode feed.Overwrite) (*feed.Package, bool, error) {
		return a.repo.Push(r.Context(), r.Space, file.FileName(), file, mode)
	})
}

func (a *api) pushDelta(r *rest.Request) (any, error) {
	return store(r, func(file *multipart.Part, mode feed.Overwrite) (*feed.Package, bool, error) {
		return a.repo.PushDelta(r.Context(), r.Space, r.PathValue("packageId"), r.PathValue("baseVersion"), file.FileName(), file, mode)
	})
}

// pushNuGet takes what a NuGet client pushes.
func (a *api) pushNuGet(r *rest.Request) (any, error) {
	return store(r, func(file *multipart.Part, mode feed.Overwrite) (*feed.Package, bool, error) {
		return a.repo.PushNuGet(r.Context(), r.Space, file.FileName(), file, mode)
	})
}

// signature offers a version to send a difference against.
func (a *api) signature(r *rest.Request) (any, error) {
	base, err := a.repo.Base(r.Context(), r.Space, r.PathValue("packageId"), r.PathValue("version"))
	if err != nil {
		return nil, err
	}
	signature, err := a.repo.Signature(r.Context(), base)
	if err != nil {
		return nil, err
	}
	return octopus.DeltaSignature{BaseVersion: base.Version, Signature: signature}, nil
}
