"""What is written in the synthetic scenes: short words as on signs, and numbers that no count reaches."""

_WORDS = """
alpha amber anchor apple arrow atlas autumn bacon badge baker bamboo basil beacon berry birch bistro blaze bloom bonus
border bravo breeze brick bridge bronze bubble butter cabin cactus camera candle canoe canyon carbon cargo castle cedar
cherry chess cider cinema citrus clover cobalt cocoa comet copper coral cotton crane crisp crown crystal daisy delta
denim desert diesel dragon dream eagle echo elite ember empire engine falcon farm feather ferry fiesta flame flint
forest fossil fresh frost galaxy garden garlic gecko ginger glacier globe granite grape guitar hammer harbor harvest
hazel helmet hidden honey hotel hunter igloo indigo iron island ivory jacket jasmine jazz jelly jewel jungle kayak
kernel kettle kiosk kiwi koala ladder lagoon lantern laser lemon level lily linen lion lotus lucky lunar magic magnet
mango maple marble market meadow melon mercury mint mirror mocha monkey moss museum nectar needle nickel noble north
nova ocean olive onyx opera orbit orchid otter oxygen paddle palace panda paper parrot pearl pepper piano pilot pixel
planet plum pocket polar poppy prism pulse quartz quiet radar rapid raven river robin rocket saddle safari salmon
sandal
"""
_SECOND_WORDS = """
avenue bakery bank bazaar beach books boots brewery cafe cellar centre chapel clinic clock club coffee corner court
dairy depot diner doctor drive exit express fabric ferryboat fitness florist fuel gallery garage gate gifts grill
grocer gym hall hardware house inn kitchen lane laundry library lodge lounge mall manor motel office optics outlet
park parking pharmacy pier pizza plaza police post pub quay radio ranch repair road salon school shop spa stage
stadium station street studio supply tailor tavern taxi theatre tower toys tyres village wharf workshop yard zone zoo
"""
WORDS = (*_WORDS.split(), *(str(17 + 23 * i) for i in range(40)))  # 17, 40 ... 914
SECOND_WORDS = tuple(_SECOND_WORDS.split())
ALL_WORDS = (*WORDS, *SECOND_WORDS)
