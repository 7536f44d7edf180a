"""Debian's paho-mqtt as a process: a command a line on stdin, an event a line on stdout, both JSON. scripted.ts is the other end."""
import json
import sys
import threading
from urllib.parse import urlparse

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

NAMES = {"responseTopic": "ResponseTopic", "contentType": "ContentType", "messageExpiry": "MessageExpiryInterval",
         "payloadFormat": "PayloadFormatIndicator", "topicAlias": "TopicAlias"}
client = None
five = False
free = threading.Event()  # while it is clear, the next message is not acknowledged and nothing more is read
free.set()


def tell(event, **more):
    sys.stdout.write(json.dumps({"event": event, **more}) + "\n")
    sys.stdout.flush()


def their_properties(given):
    if not five or given is None:
        return None
    result = Properties(PacketTypes.PUBLISH)
    for name, value in given.items():
        if name == "userProperties":
            result.UserProperty = [tuple(pair) for pair in value]
        elif name == "correlationData":
            result.CorrelationData = bytes.fromhex(value)
        else:
            setattr(result, NAMES[name], value)
    return result


def our_properties(theirs):
    if theirs is None:
        return None
    result = {ours: getattr(theirs, name) for ours, name in NAMES.items() if hasattr(theirs, name)}
    result["userProperties"] = getattr(theirs, "UserProperty", [])
    if hasattr(theirs, "CorrelationData"):
        result["correlationData"] = theirs.CorrelationData.hex()
    return result


def on_connect(_client, _data, flags, code, *_properties):
    number = code if isinstance(code, int) else code.value
    if number == 0:
        tell("connected", sessionPresent=bool(flags["session present"]))
    else:
        tell("failed", why="CONNACK %d" % number)


def on_message(_client, _data, message):
    tell("message", topic=message.topic, payload=message.payload.decode("latin1"), qos=message.qos,
         retain=bool(message.retain), properties=our_properties(getattr(message, "properties", None)))
    free.wait()


def connect(url, version, ca=None, clientId="", persistent=False, expiry=None, will=None, receiveMaximum=None):
    global client, five
    five = version == "5"
    where = urlparse(url)
    web = where.scheme.startswith("ws")
    arguments = {"client_id": clientId, "transport": "websockets" if web else "tcp",
                 "protocol": {"3.1": paho.MQTTv31, "3.1.1": paho.MQTTv311, "5": paho.MQTTv5}[version]}
    if not five:
        arguments["clean_session"] = not persistent
    client = paho.Client(**arguments)
    if web:
        client.ws_set_options(path=where.path)
    if ca is not None:
        client.tls_set(ca_certs=ca)
    if will is not None:
        client.will_set(will["topic"], will["payload"], will["qos"])
    client.on_connect = on_connect
    client.on_message = on_message
    client.on_subscribe = lambda _client, _data, _id, codes, *_more: tell("subscribed", codes=[int(getattr(c, "value", c)) for c in codes])
    more = {}
    if five:
        more["clean_start"] = not persistent
        more["properties"] = Properties(PacketTypes.CONNECT)
        if persistent or expiry is not None:
            more["properties"].SessionExpiryInterval = 3600 if expiry is None else expiry
        if receiveMaximum is not None:
            more["properties"].ReceiveMaximum = receiveMaximum
    client.connect(where.hostname, where.port, **more)
    client.loop_start()


def publish(topic, qos, payloads, retain=False, properties=None):
    sent = [client.publish(topic, payload, qos, retain, their_properties(properties)) for payload in payloads]
    for each in sent:
        each.wait_for_publish()
    tell("published")


def disconnect():
    client.disconnect()
    client.loop_stop()
    sys.exit(0)


def subscribe(filter, qos):
    client.subscribe(filter, qos)


def hold():
    free.clear()
    tell("holding")


def release():
    free.set()
    tell("released")


COMMANDS = {"hold": hold, "release": release, "connect": connect, "subscribe": subscribe, "publish": publish, "disconnect": disconnect}
for line in sys.stdin:
    command = json.loads(line)
    name = command.pop("do")
    try:
        COMMANDS[name](**command)
    except Exception as error:  # told to the test, which fails with it
        tell("failed", why="%s: %r" % (name, error))
