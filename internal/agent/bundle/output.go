package bundle

import (
	"io"
	"strings"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/servicemsg"
	"github.com/takodeploy/tako/internal/variables"
)

// output shows what a script writes: secrets masked, service messages taken out. Of
// those it knows what a terminal can do: the reason of a failure, more secrets, levels of
// lines that nobody wants to see.
type output struct {
	masker  *variables.Masker
	streams [2]stream // by agent.Source
	message string    // why the script says that it failed
	told    map[string]bool
}

type stream struct {
	w       io.Writer
	scanner servicemsg.Scanner
	carry   variables.Carry
	hidden  bool
}

func newOutput(out, errs io.Writer, secrets []string) (*output, error) {
	masker, err := variables.NewMasker(secrets...)
	if err != nil {
		return nil, err
	}
	return &output{masker: masker, streams: [2]stream{{w: out}, {w: errs}}, told: map[string]bool{}}, nil
}

// write shows more of the log.
func (o *output) write(entries []agent.Entry) error {
	for _, e := range entries {
		if e.Source == agent.Debug {
			if err := o.text(&o.streams[agent.Stdout], e.Text, true); err != nil {
				return err
			}
			continue
		}
		s := &o.streams[agent.Stdout]
		if e.Source == agent.Stderr {
			s = &o.streams[agent.Stderr]
		}
		if err := o.items(s, s.scanner.Feed(e.Text), len(e.Text) < agent.MaxEntry); err != nil {
			return err
		}
	}
	return nil
}

// end shows what was held back: the log is over.
func (o *output) end() error {
	for i := range o.streams {
		s := &o.streams[i]
		if err := o.items(s, s.scanner.Flush(), true); err != nil {
			return err
		}
		if s.carry.Held != "" {
			if err := o.text(s, "", true); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *output) items(s *stream, items []servicemsg.Item, whole bool) error {
	for _, item := range items {
		var err error
		if item.Message != nil {
			err = o.obey(s, *item.Message)
		} else {
			err = o.text(s, item.Text, whole)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (o *output) text(s *stream, text string, whole bool) error {
	text = o.masker.Next(&s.carry, text, whole)
	if s.hidden {
		return nil
	}
	if whole {
		text += "\n"
	}
	_, err := io.WriteString(s.w, text)
	return err
}

func (o *output) obey(s *stream, m servicemsg.Message) error {
	switch name := strings.ToLower(m.Name); {
	case strings.HasPrefix(name, "stdout-"):
		o.streams[agent.Stdout].hidden = name == "stdout-ignore"
	case strings.HasPrefix(name, "stderr-"):
		o.streams[agent.Stderr].hidden = name == "stderr-ignore"
	case name == "mask":
		return o.masker.Add(m.Get("value"))
	case name == "setvariable" && strings.EqualFold(m.Get("sensitive"), "true"):
		return o.masker.Add(m.Get("value"))
	case name == "resultmessage":
		o.message = o.masker.Mask(m.Get("message"))
	case name == "createartifact" && !o.told[name]:
		o.told[name] = true
		return o.text(s, "Artifacts of an offline deployment are not collected.", true)
	}
	return nil
}
