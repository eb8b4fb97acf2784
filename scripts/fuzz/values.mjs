// Values that nobody should pass and that take more than an expression to make.
import util from 'node:util';
import vm from 'node:vm';

const realm = vm.createContext();

const trueLength = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(Int32Array.prototype), 'length').get;

/** What a getter of the program throws: it must come out as it went in. */
class Planted extends Error {}

export class Values {
  planted = new Planted('planted');
  inert = () => {};

  detached(type = Float32Array) {
    const data = new type(8);
    structuredClone(data.buffer, { transfer: [data.buffer] });
    return data;
  }

  shrunk() {
    const buffer = new ArrayBuffer(64, { maxByteLength: 64 });
    const data = new Float32Array(buffer, 0, 16);
    buffer.resize(8);
    return data;
  }

  cyclic() {
    const list = [1];
    list.push(list);
    list[0] = list;
    return list;
  }

  subclassed(values) {
    class Odd extends Array {
      static get [Symbol.species]() {
        return Object;
      }
      slice() {
        return 'slice';
      }
      map() {
        return null;
      }
      every() {
        return true;
      }
    }
    return Odd.from(values);
  }

  arraySubclass(name, length) {
    return new (class extends globalThis[name] {
      static get [Symbol.species]() {
        return Date;
      }
      slice() {
        return null;
      }
      subarray() {
        return null;
      }
      set() {}
      fill() {
        return this;
      }
      map() {
        return 7;
      }
    })(length);
  }

  /** A typed array whose own properties lie. */
  disguised(data) {
    for (const name of ['length', 'byteLength', 'byteOffset'])
      Object.defineProperty(data, name, { value: 2 ** 30, configurable: true });
    Object.defineProperty(data, 'buffer', { value: new ArrayBuffer(1) });
    return Object.defineProperty(data, 'constructor', { value: Date });
  }

  lyingList(length) {
    return new Proxy([1, 2], {
      get: (target, name) => (name === 'length' ? length : (Reflect.get(target, name) ?? 1)),
    });
  }

  throwingList() {
    return new Proxy([1, 2], {
      get: (target, name) => {
        if (name === '1') throw this.planted;
        return Reflect.get(target, name);
      },
    });
  }

  bigList(length) {
    return new Array(length).fill(0);
  }

  revoked(target) {
    const { proxy, revoke } = Proxy.revocable(target, {});
    revoke();
    return proxy;
  }

  throwing() {
    const fail = () => {
      throw this.planted;
    };
    return new Proxy({}, { get: fail, has: fail, ownKeys: fail, getPrototypeOf: fail });
  }

  /** The text of a config.json; where there is none for it, the object. */
  json(value) {
    try {
      return JSON.stringify(value);
    } catch {
      return value;
    }
  }

  foreign(source) {
    return vm.runInContext(source, realm);
  }

  tampered(tensor, fields) {
    for (const [name, value] of Object.entries(fields)) Reflect.set(tensor, name, value);
    return tensor;
  }

  /** A Tensor that answers differently from the second time on. */
  twoFaced(tensor) {
    const asked = new Map();
    return new Proxy(tensor, {
      get(target, name) {
        const times = (asked.get(name) ?? 0) + 1;
        asked.set(name, times);
        const value = Reflect.get(target, name);
        if (times < 2) return value;
        return Array.isArray(value)
          ? value.map((x) => x + 2 ** 33)
          : typeof value === 'number'
            ? 2 ** 53
            : value;
      },
    });
  }

  /** A file in memory, as FileHandle acts; `bytes` is what it holds. */
  file(bytes = new Uint8Array(0)) {
    let at = 0;
    const file = {
      bytes: Buffer.from(bytes),
      async write(buffer, offset, length) {
        file.bytes = Buffer.concat([file.bytes, buffer.subarray(offset, offset + length)]);
        return { bytesWritten: length };
      },
      async read(buffer, offset, length) {
        const part = file.bytes.subarray(at, at + Math.min(length, 1000));
        buffer.set(part, offset);
        at += part.length;
        return { bytesRead: part.length };
      },
    };
    return file;
  }

  /** Changes a byte of what was written to a file, or cuts it there. */
  spoil(file, place, isCut) {
    if (util.types.isProxy(file) || !Buffer.isBuffer(file?.bytes) || file.bytes.length === 0) return;
    const { bytes } = file;
    const at = place % bytes.length;
    if (isCut) file.bytes = bytes.subarray(0, at);
    else bytes[at] ^= 1;
  }
}

/** Of a list, or of a tensor of rank 1 that begins where its data does. */
export function integersOf(list) {
  const items = Array.isArray(list) ? list : (list.data ?? list);
  // The true length: properties of its own may hide it.
  const length = ArrayBuffer.isView(items) ? trueLength.call(items) : items.length;
  return Array.from({ length }, (_, n) => items[n]);
}
