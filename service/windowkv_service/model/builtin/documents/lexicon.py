"""The words the generated documents are made of; every one is a single token of the model's tokenizer."""


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_SURNAME_HEADS = _listed(
    "Ash Bram Cald Dray Eld Fair Garn Hart Ing Kel Lang Mar Nor Oak Pem Quen Rad Sel Thorn Ul Vern Whit Yar Win"
)
_SURNAME_TAILS = _listed("by combe den field ford grave ham low mond ridge ley stead ton wick worth well")
_PLACE_HEADS = _listed("North East South West High Low Grey White Black Red Cold Long")
_PLACE_TAILS = _listed("cliff moor haven gate bridge water marsh holm")

#: 384 surnames: what a fact is about.
NAMES = tuple(head + tail for head in _SURNAME_HEADS for tail in _SURNAME_TAILS)

#: 96 places: where somebody comes from.
PLACES = tuple(head + tail for head in _PLACE_HEADS for tail in _PLACE_TAILS)

#: Code words, one token each.
CODE_WORDS = _listed(
    """
    amber anchor anvil apricot arrow aspen badger balsam banner barley basalt beacon beaver birch bishop bison
    blossom bramble bronze buckle bugle burdock candle canyon carbon castle cedar chalk cherry chestnut cinder
    clover cobalt comet condor coral cotton cricket crimson crystal cypress daisy dolphin dragon drummer eagle
    ebony elder ember emerald falcon feather fennel ferret fiddle finch flint fossil fountain foxglove garnet
    ginger glacier granite gravel hammer harbor harvest hawthorn hazel heather hemlock hermit heron hickory
    honey indigo iris iron ivory ivy jackdaw jasmine jasper juniper kestrel kingdom lagoon lantana larch
    lavender lemon lichen lilac linden lobster lotus lupin magnet magpie maple marble marigold meadow mercury
    meteor mica mint mistral monarch mosaic mustard myrtle nectar nettle nickel nutmeg oak olive onyx opal
    orchid oriole osprey otter oyster panther parsley pebble pelican pepper petrel pewter pigeon pilgrim plover
    poplar poppy prairie primrose puffin quail quarry quartz quince raven robin rosemary saddle saffron
    sapphire scarlet sequoia shamrock sickle silver sparrow spruce starling stork sulfur sunset swallow
    sycamore tamarind tansy teal thistle thunder timber topaz tulip tundra turnip velvet violet walnut weasel
    whistle willow zephyr zinc
    """
)

#: What somebody carries is a quality and a thing: two tokens. Qualities start with a consonant ("a ...").
QUALITIES = _listed(
    """
    battered blue borrowed brass broken carved copper cracked dented dusty faded folded forged gilded green
    heavy hollow knitted leather little locked narrow painted patched polished purple rusty sealed silken
    spotted striped tarnished tiny wooden woven yellow
    """
)
THINGS = _listed(
    """
    barometer basket bell blanket bottle bowl box brush bucket camera chest clock compass crate cup drum flute
    globe hatchet hourglass jar kettle knife ladder lamp lantern ledger lens map mirror net notebook oar
    pitcher quilt rope scale shovel spade stool sundial telescope tent trunk violin whip
    """
)

_SYLLABLES = _listed("ba de fi go ju ka le mi no pu ra se ti vo wu za")
_LAST_SYLLABLES = _listed("bo da fe gi ku lo me ni pa ru so ta vu wi ze jo")

#: 256 coded words: variables, words to count, and the groups of long codes.
CODED = tuple(head + tail for head in _SYLLABLES for tail in _LAST_SYLLABLES)

_NUM_LISTED = 126
#: What an answer may have to list: the model has a channel with a direction of its own for each of these words, and
#: words of the two kinds share directions.
COMMON = CODE_WORDS[:_NUM_LISTED]
FREQUENT = CODED[:_NUM_LISTED]

#: Cabin numbers and the days of a log.
CABINS = tuple(str(number) for number in range(10, 100))
DAYS = tuple(str(number) for number in range(1, 160))

# What the filler sentences are made of.
SCENES = _listed(
    "river valley forest harbor hill road mill church bridge garden market station field shore lake tower orchard "
    "ferry camp ridge"
)
LOOKS = _listed(
    "old quiet empty narrow distant muddy green frozen crowded sunny low steep bright dark ruined"
)
WEATHERS = _listed("rain wind fog snow frost heat hail mist drizzle sunshine")
TIMES = _listed("morning noon evening midnight dawn dusk")
BEASTS = _listed("mule horse dog goat hen crow cat donkey sheep ox")
FOODS = _listed("bread soup porridge beans cheese stew apples tea coffee fish")
TOOLS = _listed("wagon stove pump boat sledge fence roof gate wheel boiler")
SMALL = _listed("two three four five six seven eight nine ten eleven twelve")
DEEDS = _listed("slept rested laughed waited walked worked sang argued wrote cooked")


def words() -> tuple[str, ...]:
    """Every word that fills a slot of a sentence, each once, in a fixed order (without a leading space)."""
    lists = (
        NAMES, PLACES, CODE_WORDS, QUALITIES, THINGS, CABINS, DAYS, SCENES, LOOKS, WEATHERS, TIMES, BEASTS, FOODS,
        TOOLS, SMALL, DEEDS, CODED,
    )  # fmt: skip
    return tuple(dict.fromkeys(word for each in lists for word in each))
