"""Valency: which verbs take which things, people and places."""

# Actions and the things that they are done to.
ACTIONS = {
    "buy": "coat dress hat lamp chair bicycle car book",
    "sell": "car bicycle table bed picture",
    "wash": "shirt car jacket bicycle",
    "repair": "car bicycle lamp radio chair",
    "write": "letter story",
    "read": "book newspaper letter story",
    "eat": "apple pear egg cake bread cheese",
    "drink": "milk tea coffee water",
}
SEPARABLE = {
    "open": "door window bag suitcase",
    "close": "door window bag suitcase",
    "turn on": "lamp radio computer",
    "turn off": "lamp radio computer",
    "bring": "cake apple flower picture bread cheese",
}
GIFTS = {
    "give": "book key flower picture",
    "show": "book letter picture house",
    "send": "letter book flower picture",
    "lend": "book bicycle car bag",
    "tell": "story",
}
STATES = {
    "have": "car bicycle bag suitcase house apartment radio computer book",
    "need": "coat jacket key lamp table bed bread milk water computer",
}
LIKES = {"like": "apple pear cake tea coffee cheese dress hat flower picture"}
EVENTS = {
    "find": "key bag letter hat",
    "lose": "key bag hat jacket",
    "forget": "bag key suitcase book",
}
HABITS = {verb: ACTIONS[verb] for verb in ("eat", "drink", "read")}
# Actions that involve people, and the German case or preposition that they govern.
MEETINGS = {
    **dict.fromkeys(("visit", "meet", "call", "invite", "look for", "pick up"), "accusative"),
    **dict.fromkeys(("help", "thank", "answer"), "dative"),
    **dict.fromkeys(("dance", "talk"), "mit"),
}
MOVES = {"at": "sleep,work,wait,sing,dance,stay,watch TV", "to": "go,run", "from": "come"}
