/** The gateway's config of the demo, with every door that a device uses. */
export interface DemoAddresses {
  readonly gatewayId: string;
  readonly mqttPort: number;
  readonly httpPort: number;
  readonly cloudPort: number;
  readonly coapServerPort: number;
  readonly observablePort: number;
  /** Undefined: no serial source, because this machine has no pseudo-terminals. */
  readonly serialPath: string | undefined;
}

const codecs = `codecs:
  boiler-status:
    type: struct
    endian: little
    fields:
      - { name: kind, type: u8, enum: { 1: status, 2: alarm } }
      - { name: seq, type: u16 }
      - { name: temperature, type: i16, scale: 0.01, unit: Cel }
      - { name: pressure, type: u32, scale: 0.1, unit: Pa }
      - { name: flags, type: u8, bits: { door: 0, fan: 1, mode: [2, 3] } }
  boiler-ack:
    type: struct
    endian: little
    fields: [ { name: kind, type: u8, const: 6 }, { name: seq, type: u16 } ]
  boiler-command:
    type: struct
    endian: little
    fields: [ { name: kind, type: u8, const: 16 }, { name: setpoint, type: i16, scale: 0.01 } ]
`;

const boiler = (path: string): string => `  - name: boiler
    type: serial
    path: ${JSON.stringify(path)}
    baudRate: 115200
    framing: { type: cobs, crc: crc16-ccitt }
    decode: boiler-status
    topic: plant/boiler/{kind}
    qos: 1
    ack: boiler-ack
    commands: { topic: cmd/boiler, encode: boiler-command, expiry: 60s }
`;

const forwarded = ["plant/#", "yard/#", "field/#", "sensors/#", "meters/#"];

/** The text of tidegate.yaml. */
export function demoConfig(at: DemoAddresses): string {
  return `gateway:
  id: ${at.gatewayId}
  dataDir: ./data

mqtt:
  listeners:
    - url: mqtt://127.0.0.1:${at.mqttPort}

http:
  listen: http://127.0.0.1:${at.httpPort}

${codecs}
sources:
${at.serialPath === undefined ? "" : boiler(at.serialPath)}  - name: yard
    type: coap
    url: coap://127.0.0.1:${at.observablePort}/temp
    observe: true
    decode: cbor
    topic: yard/temp
    qos: 1
  - name: field
    type: coap-server
    listen: coap://127.0.0.1:${at.coapServerPort}
    topic: field/{path}
    decode: auto
    qos: 1

routes:
  - name: meters
    from: legacy/+/bin
    steps:
      - decode: boiler-status
    to: meters/{1}/temp

uplinks:
  - name: cloud
    url: mqtt://127.0.0.1:${at.cloudPort}
    version: 4
    clientId: ${at.gatewayId}
    envelope: json
    forward:
${forwarded.map((topic) => `      - { topic: "${topic}", to: "gw/{gateway}/{topic}", qos: 1 }`).join("\n")}
    receive:
      - { topic: "gw/{gateway}/cmd/#", to: "cmd/{rest}", qos: 1, expiry: 60s }
    backoff: { min: 200ms, max: 2s }
`;
}
