package verify

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"mime/multipart"
	"net/http"
	"strings"
)

// step sends one request of a row and notes its answer under a name that is the same for
// both programs. An answer that is no success ends the row with errStop.
func (c *client) step(ctx context.Context, part, name, method, path string, body any, session []*http.Cookie) (*answer, error) {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	a, err := c.ask(ctx, method, path, text, "", session)
	if err != nil {
		return nil, err
	}
	c.note(part, name, a)
	if a.status/100 != 2 {
		return a, errStop
	}
	return a, nil
}

// done ends a row: one that stopped early has noted why.
func done(err error) error {
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

// signIn makes a user, signs in with their password, and asks who that is.
func (c *client) signIn(ctx context.Context) error {
	name, password := Probe+"-"+strings.ToLower(rand.Text()[:10]), rand.Text()
	made, err := c.step(ctx, PartSignIn, "1 make a user", http.MethodPost, "/api/users", map[string]any{
		"Username": name, "DisplayName": name, "EmailAddress": "", "IsActive": true, "IsService": false, "Password": password,
	}, nil)
	if err != nil {
		return done(err)
	}
	err = c.session(ctx, name, password)
	_, gone := c.step(ctx, PartSignIn, "5 delete the user", http.MethodDelete, "/api/users/"+made.member("Id"), nil, nil)
	return errors.Join(done(err), done(gone))
}

func (c *client) session(ctx context.Context, name, password string) error {
	in, err := c.step(ctx, PartSignIn, "2 sign in", http.MethodPost, "/api/users/login", map[string]any{"Username": name, "Password": password, "RememberMe": false}, nil)
	if err != nil {
		return err
	}
	me, err := c.step(ctx, PartSignIn, "3 ask who that is", http.MethodGet, "/api/users/me", nil, in.cookies)
	if err != nil {
		return err
	}
	c.fact(PartSignIn, "3 ask who that is: the user", fmt.Sprintf("the one who signed in: %t", me.member("Username") == name))
	wrong, err := c.step(ctx, PartSignIn, "4 sign in with a wrong password", http.MethodPost, "/api/users/login", map[string]any{"Username": name, "Password": password + "x"}, nil)
	if wrong != nil && wrong.status/100 == 4 {
		return nil // as it should be
	}
	return err
}

// push pushes a package and makes a release of it, in a space of its own that goes again.
func (c *client) push(ctx context.Context) (err error) {
	own, err := c.step(ctx, PartPush, "01 make a space", http.MethodPost, "/api/spaces", map[string]any{
		"Name": Probe + "-" + strings.ToLower(rand.Text()[:6]), "SpaceManagersTeams": []string{"teams-administrators"}, "SpaceManagersTeamMembers": []string{},
	}, nil)
	if err != nil {
		return done(err)
	}
	id := own.member("Id")
	err = done(c.pushIn(ctx, "/api/"+id))
	var space map[string]any
	if bad := json.Unmarshal(own.body, &space); bad != nil {
		return errors.Join(err, bad)
	}
	space["TaskQueueStopped"] = true
	_, gone := c.step(ctx, PartPush, "10 stop the space", http.MethodPut, "/api/spaces/"+id, space, nil)
	if gone == nil {
		_, gone = c.step(ctx, PartPush, "11 delete the space", http.MethodDelete, "/api/spaces/"+id, nil, nil)
	}
	return errors.Join(err, done(gone))
}

func (c *client) pushIn(ctx context.Context, space string) error {
	const packageID, version = "Tako.Verify", "1.0.0"
	form, kind, err := probePackage(packageID + "." + version + ".zip")
	if err != nil {
		return err
	}
	pushed, err := c.ask(ctx, http.MethodPost, space+"/packages/raw", form, kind, nil)
	if err != nil {
		return err
	}
	c.note(PartPush, "02 push a package", pushed)
	if pushed.status/100 != 2 {
		return errStop
	}
	groups, err := c.step(ctx, PartPush, "03 find the project group", http.MethodGet, space+"/projectgroups", nil, nil)
	if err != nil {
		return err
	}
	cycles, err := c.step(ctx, PartPush, "04 find the lifecycle", http.MethodGet, space+"/lifecycles", nil, nil)
	if err != nil {
		return err
	}
	feeds, err := c.step(ctx, PartPush, "05 find the feed", http.MethodGet, space+"/feeds", nil, nil)
	if err != nil {
		return err
	}
	project, err := c.step(ctx, PartPush, "06 make a project", http.MethodPost, space+"/projects", map[string]any{
		"Name": Probe, "ProjectGroupId": groups.first(), "LifecycleId": cycles.first(),
	}, nil)
	if err != nil {
		return err
	}
	process := space + "/deploymentprocesses/" + project.member("DeploymentProcessId")
	got, err := c.step(ctx, PartPush, "07 read its process", http.MethodGet, process, nil, nil)
	if err != nil {
		return err
	}
	var doc map[string]any
	if err := json.Unmarshal(got.body, &doc); err != nil {
		return err
	}
	doc["Steps"] = []any{map[string]any{"Name": "Say", "Actions": []any{map[string]any{
		"Name": "Say", "ActionType": "Octopus.Script",
		"Properties": map[string]string{"Octopus.Action.RunOnServer": "true", "Octopus.Action.Script.ScriptSource": "Inline", "Octopus.Action.Script.Syntax": "Bash", "Octopus.Action.Script.ScriptBody": "echo verified"},
		"Packages":   []any{map[string]any{"Name": "one", "PackageId": packageID, "FeedId": feeds.first(), "AcquisitionLocation": "Server", "Properties": map[string]string{"Extract": "false"}}},
	}}}}
	if _, err := c.step(ctx, PartPush, "08 give it a step", http.MethodPut, process, doc, nil); err != nil {
		return err
	}
	release, err := c.step(ctx, PartPush, "09 make a release", http.MethodPost, space+"/releases", map[string]any{
		"ProjectId": project.member("Id"), "Version": version,
		"SelectedPackages": []any{map[string]any{"ActionName": "Say", "PackageReferenceName": "one", "Version": version}},
	}, nil)
	if err != nil {
		return err
	}
	if _, err := c.step(ctx, PartPush, "09 read the release", http.MethodGet, space+"/releases/"+release.member("Id"), nil, nil); err != nil {
		return err
	}
	_, err = c.step(ctx, PartPush, "09 delete the release", http.MethodDelete, space+"/releases/"+release.member("Id"), nil, nil)
	return err
}

// first is the id of the first document of a list.
func (a *answer) first() string {
	var list struct{ Items []struct{ ID string } }
	if err := json.Unmarshal(a.body, &list); err != nil || len(list.Items) == 0 {
		return ""
	}
	return list.Items[0].ID
}

// probePackage is a form with a small package in it, and its type.
func probePackage(name string) (form []byte, kind string, err error) {
	var content, body bytes.Buffer
	z := zip.NewWriter(&content)
	f, err := z.Create("verified.txt")
	if err == nil {
		_, err = f.Write([]byte("verified\n"))
	}
	if err := errors.Join(err, z.Close()); err != nil {
		return nil, "", err
	}
	w := multipart.NewWriter(&body)
	part, err := w.CreateFormFile("file", name)
	if err == nil {
		_, err = part.Write(content.Bytes())
	}
	err = errors.Join(err, w.Close()) // which completes the body
	return body.Bytes(), w.FormDataContentType(), err
}
