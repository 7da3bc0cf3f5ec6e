"""Sentences that instruct, and those that announce what follows."""

from __future__ import annotations

import re
from typing import Final

_VERBS = (
    r"(?:use|try|make|take|find|start|choose|keep|get|go|put|look|check|add|set|open|click|read|write|ask|call|"
    r"visit|apply|"
    r"avoid|begin|bring|build|buy|clean|close|combine|connect|consider|contact|cook|create|cut|determine|"
    r"develop|divide|"
    r"ensure|establish|fill|focus|follow|gather|give|hold|identify|install|join|learn|leave|let|listen|locate|"
    r"measure|mix|"
    r"move|obtain|place|plan|practice|prepare|press|remove|repeat|research|rinse|run|save|search|select|sell|"
    r"send|show|"
    r"stay|stir|stop|talk|tell|turn|type|wait|wash|wear|work|acquire|cover|drill|mark|position|enter|insert|pull|push|"
    r"pour|heat|drop|hit|aim|approach|attach|carry|catch|collect|conduct|consult|declutter|define|dig|discard|"
    r"donate|draw)"
)
INSTRUCT: Final = re.compile(
    r"^(?:(?:first|second|third|next|then|finally|once|after|now|also|simply|lastly|step \d+)\b[\w\s,']{0,40}?)?\b"
    + _VERBS
    + r"\b(?! (?:is|are|was|has|of)\b)|\byou (?:can|could|will (?:need|want|have)|would (?:need|have|want)|need|"
    + r"should|may|might)"
    r"\b|^to [a-z]+\b[^,]{2,80},|\bthe (?:best|easiest|first|general|simplest|main) (?:way|ways|step|steps|"
    r"process|thing)\b"
)
# A verb without a subject, known by what stands around it: no word of a closed class before an object.
IMPERATIVE: Final = re.compile(
    r"^(?!(?:the|a|an|this|that|these|those|it|he|she|they|we|you|i|there|here|who|what|which|when|where|why|how|if|as|"
    r"while|although|though|because|since|after|before|during|within|without|despite|unlike|like|under|over|above|"
    r"below|between|among|through|by|with|for|from|in|on|at|of|to|into|onto|about|against|not|no|nor|neither|either|"
    r"both|all|some|any|each|every|most|many|few|several|one|two|three|and|or|but|so|yet|also|even|only|just|rather|"
    r"perhaps|maybe|once|then|thus|hence|given|is|are|was|were|do|does|did|has|have|had|can|could|may|might|will|would|"
    r"should|must|shall|his|her|its|their|our|my|your|whether|unless|until|throughout|across|around|behind|beyond|"
    r"please|sorry|thank|thanks|sure|yes|remember|note|always|never)\b)"
    r"[a-z]+(?<!ing)(?<!ed)(?<!ly)(?<!s)\s+(?:the|an?|your|them|it|some|each|any|both|this|these|those|all|two|three|"
    r"up|down|out|off|away|until|enough|yourself)\b"
)
INTRODUCE: Final = re.compile(
    r"\b(?:here (?:are|is)|below (?:are|is)|(?:the )?following|(?:follow|try|take) these|there are (?:several|"
    r"many|a few|some|"
    r"various|different|a number|multiple|two|three)|these (?:steps|include)|(?:some|several|few) (?:\w+ ){0,3}"
    r"(?:tips|steps|ways|suggestions|options|ideas|examples|strategies|reasons|methods))\b"
)
