package secret

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// words stand for the bytes of a recovery key on paper. Their first four letters
// tell them apart, so that a slip in the rest of a word does no harm.
var words = strings.Fields(wordList) //nolint:gochecknoglobals // a constant list

const wordList = `
able acid acorn actor adopt agent alarm album alert alley amber anchor angle ankle apple april
arch arena armor arrow aspen atlas attic audio autumn avenue bacon badge baker bamboo banjo barrel
basin beach beaver bench berry bicycle birch bison blanket blue boat bonus border bottle branch bread
brick bronze bucket bullet butter cabin cactus camel candle canoe carbon castle cedar cello chalk
cherry chimney cinema circle citrus clay cliff clover cobalt coffee comet copper coral cotton cousin
crane cricket crystal curtain cycle daisy dance delta denim desert diamond dinner dolphin donkey dragon
drum eagle earth easel echo elbow elephant ember engine envelope epoch equal escape evening fabric
falcon farmer feather fence fiddle field finger flame flute forest fossil fountain frost galaxy garden
garlic gentle ginger giraffe glacier globe goblet golden granite grape guitar hammer harbor harvest hazel
helmet herring hickory hockey honey horizon hotel husky iceberg igloo indigo insect iris island ivory
jacket jaguar jasmine jelly jewel jigsaw jungle kayak kernel kettle kitchen kiwi koala ladder lagoon
lantern lemon leopard library lilac lime linen lizard lobster lotus lunar magnet mango maple marble
meadow melon mercury mint mirror monkey mosaic mountain museum napkin needle nickel noble north nutmeg
oasis ocean olive onion opera orange orbit orchid otter oven oyster paddle panda paper parrot
pebble pencil pepper piano pigeon pillow pine planet plum pocket polar pony prairie pumpkin purple
puzzle quartz queen quilt rabbit radar raven ribbon river robin rocket ruby saddle salmon satin
saturn school silver spider summer table tiger tulip turtle valley violin walnut zebra
`

// wordsOf spells bytes, with a check at the end.
func wordsOf(raw []byte) []string {
	out := make([]string, 0, len(raw)+1)
	for _, b := range append(slices.Clone(raw), check(raw)) {
		out = append(out, words[b])
	}
	return out
}

// bytesOf reads what wordsOf spelled. It heeds the first four letters of a word.
func bytesOf(spelled []string) ([]byte, error) {
	raw := make([]byte, 0, len(spelled))
	for i, w := range spelled {
		at := slices.IndexFunc(words, func(known string) bool { return head(known) == head(strings.ToLower(w)) })
		if at < 0 {
			return nil, fmt.Errorf("word %d is none of the words of recovery keys; compare it with the paper", i+1)
		}
		raw = append(raw, byte(at))
	}
	if len(raw) < 2 || check(raw[:len(raw)-1]) != raw[len(raw)-1] {
		return nil, errors.New("the words do not fit together: one is missing, too many, or in another place; compare them with the paper")
	}
	return raw[:len(raw)-1], nil
}

func head(word string) string { return word[:min(len(word), 4)] }

// check is a CRC of eight bits: it finds a wrong word and two that changed places.
func check(raw []byte) byte {
	var crc byte = 0xA5
	for _, b := range raw {
		crc ^= b
		for range 8 {
			carry := crc & 0x80
			crc <<= 1
			if carry != 0 {
				crc ^= 0x1D
			}
		}
	}
	return crc
}
