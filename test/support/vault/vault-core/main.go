// The core of HashiCorp Vault 1.13.0, the last whose modules fit together, as an ordinary Go dependency, for the tests alone. Its own
// command can not be one: it brings every engine there is. Understood are the two ways in which the tests start a server,
// `server -dev …` and `server -config=FILE`, with listeners without TLS.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	log "github.com/hashicorp/go-hclog"
	jwt "github.com/hashicorp/vault-plugin-auth-jwt"
	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/logical/database"
	"github.com/hashicorp/vault/builtin/logical/pki"
	"github.com/hashicorp/vault/builtin/logical/rabbitmq"
	"github.com/hashicorp/vault/builtin/logical/ssh"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/helper/namespace"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/plugins/database/postgresql"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

type config struct {
	Storage  struct{ File struct{ Path string } }
	Listener []struct {
		TCP struct {
			Address            string
			MaxRequestDuration string `json:"max_request_duration"`
		}
	}
}

func main() {
	if err := serve(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(args []string) error {
	if len(args) == 0 || args[0] != "server" {
		return errors.New("usage: vault-core server -dev -dev-root-token-id=TOKEN -dev-listen-address=HOST:PORT | -config=FILE")
	}
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	dev := flags.Bool("dev", false, "unsealed, everything in memory")
	flags.Bool("dev-no-store-token", true, "it never is")
	token := flags.String("dev-root-token-id", "", "the root token")
	address := flags.String("dev-listen-address", "127.0.0.1:8200", "")
	path := flags.String("config", "", "a file of JSON, with storage.file.path and listener.tcp.address")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	logger := log.New(&log.LoggerOptions{Level: log.Info})
	if *dev {
		storage, err := inmem.NewInmem(nil, logger)
		if err != nil {
			return err
		}
		core, err := newCore(storage, logger)
		if err != nil {
			return err
		}
		if err := makeReady(core, *token); err != nil {
			return err
		}
		return listen(core, *address, vault.DefaultMaxRequestDuration)
	}
	text, err := os.ReadFile(*path)
	if err != nil {
		return err
	}
	var read config
	if err := json.Unmarshal(text, &read); err != nil {
		return err
	}
	if len(read.Listener) != 1 {
		return errors.New("one listener, please")
	}
	storage, err := file.NewFileBackend(map[string]string{"path": read.Storage.File.Path}, logger)
	if err != nil {
		return err
	}
	core, err := newCore(storage, logger)
	if err != nil {
		return err
	}
	longest, err := time.ParseDuration(read.Listener[0].TCP.MaxRequestDuration)
	if err != nil {
		return err
	}
	return listen(core, read.Listener[0].TCP.Address, longest)
}

func newCore(storage physical.Backend, logger log.Logger) (*vault.Core, error) {
	return vault.NewCore(&vault.CoreConfig{
		Physical:        storage,
		Logger:          logger,
		DisableMlock:    true,
		BuiltinRegistry: registry{},
		CredentialBackends: map[string]logical.Factory{
			"approle": approle.Factory, "jwt": jwt.Factory, "kubernetes": kubernetes.Factory,
		},
		LogicalBackends: map[string]logical.Factory{
			"database": database.Factory, "kv": kv.Factory, "pki": pki.Factory, "rabbitmq": rabbitmq.Factory,
			"ssh": ssh.Factory, "transit": transit.Factory,
		},
	})
}

// Initialised, unsealed, with that root token and values at `secret/`: what the dev mode of Vault is.
func makeReady(core *vault.Core, token string) error {
	ctx := namespace.ContextWithNamespace(context.Background(), namespace.RootNamespace)
	one := &vault.SealConfig{SecretShares: 1, SecretThreshold: 1, StoredShares: 1}
	made, err := core.Initialize(ctx, &vault.InitParams{BarrierConfig: one})
	if err != nil {
		return err
	}
	key := base64.StdEncoding.EncodeToString(made.SecretShares[0])
	if unsealed, err := core.Unseal(made.SecretShares[0]); err != nil || !unsealed {
		return fmt.Errorf("it is not unsealed: %w", err)
	}
	for path, data := range map[string]map[string]interface{}{
		"auth/token/create": {"id": token, "policies": []string{"root"}, "no_parent": true, "no_default_policy": true},
		"sys/mounts/secret": {"type": "kv", "options": map[string]interface{}{"version": "2"}},
	} {
		request := &logical.Request{ID: path, Operation: logical.UpdateOperation, ClientToken: made.RootToken, Path: path, Data: data}
		answer, err := core.HandleRequest(ctx, request)
		if err == nil && answer.IsError() {
			err = answer.Error()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	fmt.Println("Unseal Key:", key)
	return nil
}

func listen(core *vault.Core, address string, longest time.Duration) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	properties := &vault.HandlerProperties{
		Core:           core,
		ListenerConfig: &configutil.Listener{Address: address, MaxRequestDuration: longest},
	}
	return http.Serve(listener, vaulthttp.Handler.Handler(properties))
}

// What a core asks for by name: which plugins are built in. Ours is the one for PostgreSQL; engines and logins it was given.
type registry struct{}

const postgres = "postgresql-database-plugin"

func (registry) Get(name string, kind consts.PluginType) (func() (interface{}, error), bool) {
	return postgresql.New, registry{}.Contains(name, kind)
}

func (registry) Contains(name string, kind consts.PluginType) bool {
	return name == postgres && kind == consts.PluginTypeDatabase
}

func (registry) Keys(kind consts.PluginType) []string {
	if kind == consts.PluginTypeDatabase {
		return []string{postgres}
	}
	return nil
}

func (registry) DeprecationStatus(string, consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, true
}
