/** The config that a kept gateway folder was made with, and is opened with. */
export const keptConfig = (port: number, cloudPort: number): string => `
gateway: { id: kept, dataDir: ./data }
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${port}" } ] }
http: { listen: false }
storage: { minFreeBytes: 0 }
uplinks:
  - name: cloud
    url: mqtt://127.0.0.1:${cloudPort}
    version: 5
    backoff: { min: 20ms, max: 100ms }
    forward: [ { topic: "plant/#", to: "up/{topic}", qos: 1 } ]
`;
